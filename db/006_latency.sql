-- Schema 6: latencies of segmenters that others measured, taken in by `luma evidence import`.

CREATE TABLE latency_row (
    latency_row_id INTEGER PRIMARY KEY,
    hash TEXT NOT NULL UNIQUE CHECK (length(hash) = 64),
    model TEXT NOT NULL,
    architecture TEXT NOT NULL,          -- timm's name of the backbone, empty when it is none
    head TEXT NOT NULL,
    device TEXT NOT NULL,
    runtime TEXT NOT NULL CHECK (runtime IN ('eager', 'compile', 'tensorrt')),
    dtype TEXT NOT NULL CHECK (dtype IN ('float32', 'float16', 'bfloat16', 'int8')),
    height INTEGER NOT NULL CHECK (height > 0),
    width INTEGER NOT NULL CHECK (width > 0),
    batch INTEGER NOT NULL CHECK (batch > 0),
    ms REAL NOT NULL CHECK (ms > 0),     -- of the whole batch
    macs INTEGER,                        -- of the whole segmenter on one image
    remark TEXT NOT NULL,
    source TEXT NOT NULL
) STRICT;
