from draw_windows import show
from returns_pipeline.testing import Wait, timed
from returns_pipeline.windows import TumblingWindows, event_windows

stamps = [1, 6, 3, 12, 8, 17, 4, 22]  # one arrives each second
source = timed(*(step for stamp in stamps for step in (stamp, Wait(1))))
show(source, event_windows, TumblingWindows(10), timestamp=float, allowed_lateness=5)
