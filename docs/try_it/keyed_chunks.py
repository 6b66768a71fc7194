from draw_windows import show
from returns_pipeline.testing import Wait, timed
from returns_pipeline.windows import keyed_chunks

source = timed(
    *("a1", Wait(0.5), "b1", Wait(0.5), "a2", Wait(1), "b2", Wait(1)),
    *("c1", "c2", "c3", Wait(3), "b3", Wait(1)),
)
show(source, keyed_chunks, 3, 2.5, key=lambda item: item[0])
