from draw_windows import show
from returns_pipeline.testing import script
from returns_pipeline.windows import chunks_until


def is_z(item: str) -> bool:
    return item == "z"


show(script("abz-czd-----e-|"), chunks_until, is_z, timeout=3.0)
