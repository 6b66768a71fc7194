from draw_windows import show
from returns_pipeline.testing import script
from returns_pipeline.windows import sliding

show(script("a-b-c-d-e-f-|"), sliding, 3, step=2)
