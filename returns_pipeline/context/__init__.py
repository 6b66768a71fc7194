"""`StepContext`: a step registers its undo actions with it, and it commits or undoes them.

>>> from returns.future import future_safe
>>> from returns_pipeline.testing import run
>>> async def drop_table(name: str) -> None:
...     print("dropped", name)
>>> @future_safe(exceptions=(OSError,))
... async def load(ctx: StepContext) -> int:
...     await ctx.register(drop_table, "staging")  # then create it
...     raise OSError("no space")
>>> async def main() -> None:
...     async with StepContext("import") as ctx:
...         print(await ctx.run(load(ctx)))
>>> run(main())
dropped staging
<IOResult: <Failure: no space>>
"""

from returns_pipeline.context._context import StepContext
from returns_pipeline.context._step_scope import ContextStatistics

__all__ = ["ContextStatistics", "StepContext"]
