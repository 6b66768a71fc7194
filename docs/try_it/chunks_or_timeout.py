from draw_windows import show
from returns_pipeline.testing import script
from returns_pipeline.windows import chunks_or_timeout

# One character is a second: an item, or - for none. The source ends at |.
show(script("abc-d-e---f-|"), chunks_or_timeout, 3, 2.5)
