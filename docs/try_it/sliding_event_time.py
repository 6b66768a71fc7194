from draw_windows import show
from returns_pipeline.testing import Wait, timed
from returns_pipeline.windows import SlidingWindows, event_windows

stamps = [6, 8, 13, 17, 21]  # one arrives each second
source = timed(*(step for stamp in stamps for step in (stamp, Wait(1))))
show(source, event_windows, SlidingWindows(10, 5), timestamp=float)
