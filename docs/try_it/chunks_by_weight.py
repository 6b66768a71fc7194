from draw_windows import show
from returns_pipeline.testing import script
from returns_pipeline.windows import chunks_by_weight

weights = {"a": 2, "b": 5, "c": 6, "d": 12, "e": 3}

show(script("ab-c-d--e----|"), chunks_by_weight, 10, 4.0, weight=lambda item: weights[item])
