"""A pytest plugin: tests of pytest-asyncio on virtual time.

.. code-block:: python

    @pytest.mark.virtual_time
    async def test_a_quiet_hour_ends_at_once() -> None:
        await asyncio.sleep(3600)

    async def test_that_moves_the_clock(virtual_time: VirtualTimeLoop) -> None:
        await virtual_time.advance(5)
        assert virtual_time.time() == 5

The marker, or the fixture, runs a test on the virtual clock of `returns_pipeline.testing`, which
starts at 0 seconds, together with the test's async fixtures: those of function scope, in
function-scoped loops. In pytest-asyncio's strict mode the marker also does what
``@pytest.mark.asyncio`` does. A deadlock fails the test, and the message names where each task
waits. Tasks that the test and its fixtures leave running fail its teardown, unless the test has
failed already. Marked tests that are not async are not changed, so a module or a class can be
marked as a whole.

Without pytest-asyncio, marked async tests are run by this plugin, as by
`returns_pipeline.testing.run`; async fixtures need pytest-asyncio.

The modules of the clock are imported when the first test needs them. (PYTEST_DONT_REWRITE:
there are no assertions here.)
"""

from __future__ import annotations

import asyncio
import inspect
from typing import TYPE_CHECKING, Any, TypeAlias

import pytest

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator, Generator, Iterator, Mapping

    from returns_pipeline.testing import VirtualTimeLoop

    _Made: TypeAlias = pytest.Item | pytest.Collector | list[pytest.Item | pytest.Collector] | None

__all__: list[str] = []

_NAME = "virtual_time"
_FAILED = pytest.StashKey[bool]()


def pytest_configure(config: pytest.Config) -> None:
    """Register the marker, and the plugin for an installation with or without pytest-asyncio."""
    config.addinivalue_line(
        "markers",
        f"{_NAME}: run an async test on virtual time, with a check for leaks (returns_pipeline)",
    )
    part = _WithAsyncio.with_fixture() if _has_asyncio(config) else _Alone()
    _ = config.pluginmanager.register(part, "returns_pipeline_virtual_time")


def _has_asyncio(config: pytest.Config) -> bool:
    plugins = config.pluginmanager.get_plugins()
    return any(getattr(plugin, "__name__", "") == "pytest_asyncio.plugin" for plugin in plugins)


def _is_async(function: Any) -> bool:
    inner = getattr(getattr(function, "hypothesis", None), "inner_test", function)
    return inspect.iscoroutinefunction(inner)


def _is_chosen(item: pytest.Function) -> bool:
    """Whether an async test has the marker, or uses the fixture."""
    chosen = item.get_closest_marker(_NAME) is not None or _NAME in item.fixturenames
    return chosen and _is_async(item.obj)


def _chosen(made: _Made) -> Iterator[pytest.Function]:
    """Yield the chosen tests among those just collected, each with the fixture added."""
    for item in made if isinstance(made, list) else [made]:
        if isinstance(item, pytest.Function) and _is_chosen(item):
            # Set up first and torn down last, so it also finds what other fixtures leave running.
            names = item.fixturenames
            if _NAME in names:
                names.remove(_NAME)
            names.insert(0, _NAME)
            yield item


class _WithAsyncio:
    """The plugin where pytest-asyncio runs the tests."""

    virtual_time: Any

    @classmethod
    def with_fixture(cls) -> _WithAsyncio:
        """Add the fixture, which needs pytest-asyncio, to the class, where pytest looks for it."""
        import pytest_asyncio

        fixture = pytest_asyncio.fixture(cls._virtual_time, loop_scope="function", name=_NAME)
        cls.virtual_time = fixture
        return cls()

    async def _virtual_time(
        self, request: pytest.FixtureRequest
    ) -> AsyncGenerator[VirtualTimeLoop, None]:
        """Put the test on virtual time; the value is its `VirtualTimeLoop`."""
        from returns_pipeline.testing._clock import virtual_loop
        from returns_pipeline.testing._runner import check_leaks

        yield virtual_loop("the fixture virtual_time")
        if not request.node.stash.get(_FAILED, True):
            await check_leaks()

    @pytest.hookimpl(wrapper=True, tryfirst=True)
    def pytest_generate_tests(self, metafunc: pytest.Metafunc) -> Generator[None, None, None]:
        """Create the loop here, even if other plugins create loops for pytest-asyncio."""
        item = metafunc.definition
        if not _is_chosen(item):
            return (yield)
        _mark_for_asyncio(item)
        manager = metafunc.config.pluginmanager
        makers = getattr(item.ihook, "pytest_asyncio_loop_factories", None)
        if makers is None or not makers.get_hookimpls():
            return (yield)
        with_priority = _LoopFactories()
        manager.register(with_priority)
        try:
            return (yield)
        finally:
            manager.unregister(with_priority)

    @pytest.hookimpl(wrapper=True, trylast=True)
    def pytest_pycollect_makeitem(self) -> Generator[None, _Made, _Made]:
        """Mark the tests before pytest-asyncio looks for its own marker."""
        made = yield
        for item in _chosen(made):
            _mark_for_asyncio(item)
        return made

    @pytest.hookimpl(wrapper=True)
    def pytest_fixture_setup(
        self, fixturedef: pytest.FixtureDef[Any], request: pytest.FixtureRequest
    ) -> Generator[None, object, object]:
        """Create the loop of a chosen test's runner here."""
        if fixturedef.argname != "_function_scoped_runner" or _NAME not in request.fixturenames:
            return (yield)
        # A runner without a factory calls the policy. Only this runner must get a virtual loop.
        policy = request.getfixturevalue("event_loop_policy")
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(policy, "new_event_loop", _make_loop)
            return (yield)

    @pytest.hookimpl(wrapper=True)
    def pytest_runtest_makereport(
        self, item: pytest.Item, call: pytest.CallInfo[None]
    ) -> Generator[None, pytest.TestReport, pytest.TestReport]:
        """Record whether the test has failed."""
        if call.when == "call":
            item.stash[_FAILED] = call.excinfo is not None
        return (yield)


class _LoopFactories:
    @pytest.hookimpl(tryfirst=True)
    def pytest_asyncio_loop_factories(self) -> Mapping[str, Any]:
        return {_NAME: _make_loop}


def _make_loop() -> asyncio.AbstractEventLoop:
    from returns_pipeline.testing import VirtualTimeLoop

    return VirtualTimeLoop()


def _mark_for_asyncio(item: pytest.Function) -> None:
    marker = item.get_closest_marker("asyncio")
    scope = marker and (marker.kwargs.get("loop_scope") or marker.kwargs.get("scope"))
    if scope not in {None, "function"}:
        pytest.fail(
            f"{item.nodeid}: virtual_time needs a loop of the test's own, not loop_scope={scope!r}",
            pytrace=False,
        )
    # The closest marker counts, so it also overrides a default scope of the configuration.
    item.add_marker(pytest.mark.asyncio(loop_scope="function"), append=False)


class _Alone:
    """The plugin where no other plugin runs async tests."""

    @pytest.hookimpl(wrapper=True)
    def pytest_pycollect_makeitem(self) -> Generator[None, _Made, _Made]:
        """Add the fixture to the chosen tests."""
        made = yield
        _ = list(_chosen(made))
        return made

    @pytest.fixture
    def virtual_time(self, request: pytest.FixtureRequest) -> None:
        """Put the test on virtual time; the value is its `VirtualTimeLoop`."""
        if not inspect.iscoroutinefunction(request.function):
            pytest.fail("virtual_time is for tests that are coroutine functions", pytrace=False)

    @pytest.hookimpl(tryfirst=True)
    def pytest_pyfunc_call(self, pyfuncitem: pytest.Function) -> bool | None:
        """Run the test, with the loop, which exists only now, as its argument."""
        test = pyfuncitem.obj
        if not (_is_chosen(pyfuncitem) and inspect.iscoroutinefunction(test)):
            return None
        names = inspect.signature(test).parameters.keys() & pyfuncitem.funcargs.keys()
        arguments = {name: pyfuncitem.funcargs[name] for name in names}

        async def main() -> None:
            if _NAME in arguments:
                arguments[_NAME] = asyncio.get_running_loop()
            await test(**arguments)

        from returns_pipeline.testing import run

        run(main())
        return True
