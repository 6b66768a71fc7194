from .advanced import *
from .aggregate import *
from .combine import *
from .create import *
from .misc import *
from .select import *
from .time import *
from .transform import *
