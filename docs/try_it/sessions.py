from draw_windows import show
from returns_pipeline.testing import script
from returns_pipeline.windows import sessions

show(script("ab-c----defghi--|"), sessions, 2.5, max_duration=4.5)
