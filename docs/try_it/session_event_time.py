from draw_windows import show
from returns_pipeline.testing import Wait, timed
from returns_pipeline.windows import SessionWindows, event_windows

stamps = [1, 3, 9, 6, 12, 20, 21]  # one arrives each second
source = timed(*(step for stamp in stamps for step in (stamp, Wait(1))))
show(source, event_windows, SessionWindows(4), timestamp=float, max_out_of_orderness=3)
