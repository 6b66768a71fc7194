# Types of aiostream 0.8: its operators as mypy can read them, the rest as aiostream types it.
#
# aiostream's operators are instances of protocols that are generic over a ParamSpec; mypy loses
# their type variables (python/mypy#17191). Here each is an instance of a class with three methods:
# the call, `raw` and `pipe`. Where the types of a source and of a function depend on each other,
# or on whether the function is a coroutine function, there are overloads.

from . import pipe as pipe
from . import stream as stream
from .aiter_utils import async_ as async_
from .aiter_utils import await_ as await_
from .core import (
    Stream as Stream,
)
from .core import (
    StreamEmpty as StreamEmpty,
)
from .core import (
    operator as operator,
)
from .core import (
    pipable_operator as pipable_operator,
)
from .core import (
    sources_operator as sources_operator,
)
from .core import (
    streamcontext as streamcontext,
)

__version__: str

__all__ = [
    "Stream",
    "StreamEmpty",
    "__version__",
    "async_",
    "await_",
    "operator",
    "pipable_operator",
    "pipe",
    "sources_operator",
    "stream",
    "streamcontext",
]
