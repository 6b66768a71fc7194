"""The steps of `.ci/run`, one by one: ``nox -s lint``. They use the environment of the checkout."""

import nox

nox.options.sessions = ["lint", "types", "tests"]
nox.options.default_venv_backend = "none"


def run(session: nox.Session, *command: str) -> None:
    """Run a command in the environment that uv keeps for this checkout."""
    session.run("uv", "run", "--all-extras", "--all-groups", *command)


@nox.session
def lint(session: nox.Session) -> None:
    """Check style, format and import contracts."""
    run(session, "ruff", "check", ".")
    run(session, "ruff", "format", "--check", ".")
    run(session, "lint-imports")


@nox.session
def types(session: nox.Session) -> None:
    """Check the types with mypy and pyright, and that every public name has one."""
    run(session, "mypy")
    run(session, "pyright")
    run(session, "pyright", "--verifytypes", "returns_pipeline", "--ignoreexternal")


@nox.session
def tests(session: nox.Session) -> None:
    """Run the quick tests; arguments are passed on: ``nox -s tests -- -k window``."""
    run(session, "pytest", *session.posargs)


@nox.session
def slow(session: nox.Session) -> None:
    """Run the slow tests on all cores."""
    run(session, "pytest", "-m", "slow", "-n", "auto", *session.posargs)


@nox.session
def docs(session: nox.Session) -> None:
    """Make the site in ``build/site``; a reference or a link that leads to nothing fails."""
    run(session, "sphinx-build", "-W", "-n", "docs", "build/site")


@nox.session
def ci(session: nox.Session) -> None:
    """Run everything that must hold, on every Python that is found."""
    session.run(".ci/run", external=True)
