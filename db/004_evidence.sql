-- Schema 4: results from elsewhere that the user took in, beside the published ones that ship as a file.
--
-- Columns are those of luma's table of results. hash covers them all; what is not known is empty text, or NULL where the
-- column is a number. Such a row never changes: it is added, or taken out again.

CREATE TABLE evidence_row (
    evidence_row_id INTEGER PRIMARY KEY,
    hash TEXT NOT NULL UNIQUE CHECK (length(hash) = 64),
    provenance TEXT NOT NULL CHECK (provenance IN ('own run', 'published LUMA', 'other head')),
    trust TEXT NOT NULL CHECK (trust IN ('primary', 'inferred', 'secondary')),
    dataset TEXT NOT NULL,
    split TEXT NOT NULL,
    head TEXT NOT NULL,
    regime TEXT NOT NULL CHECK (regime IN ('fine-tuned', 'frozen')),
    eval TEXT NOT NULL CHECK (eval IN ('single-scale', 'ms+flip', '')),
    backbone TEXT NOT NULL,
    miou_percent REAL NOT NULL CHECK (miou_percent > 0 AND miou_percent < 100),
    height INTEGER,                      -- of the training crop in pixels
    width INTEGER,
    recipe TEXT NOT NULL,
    schedule TEXT NOT NULL,
    pretraining TEXT NOT NULL,           -- objective, `other` when it is none of luma's
    pretraining_raw TEXT NOT NULL,       -- as it was printed
    pretraining_data TEXT NOT NULL,
    extra_data TEXT NOT NULL,
    family TEXT NOT NULL,
    timm TEXT NOT NULL,
    architecture TEXT NOT NULL,
    in_timm TEXT NOT NULL,
    params_m REAL,                       -- millions
    params_scope TEXT NOT NULL,
    gflops_published REAL,
    flops_unit TEXT NOT NULL,
    head_raw TEXT NOT NULL,
    seeds INTEGER NOT NULL CHECK (seeds > 0),
    source TEXT NOT NULL,
    url TEXT NOT NULL,
    doubtful TEXT NOT NULL,
    remarks TEXT NOT NULL,
    notes TEXT NOT NULL,
    file TEXT NOT NULL,                  -- name of the file that it came from first
    imported_unix_seconds REAL NOT NULL  -- when
) STRICT;

CREATE INDEX evidence_row_by_source ON evidence_row (source);

-- Every imported result, one row each. evidence_id is what `luma evidence` calls it.
CREATE VIEW evidence AS
SELECT
    'imp-' || substr(hash, 1, 8) AS evidence_id,
    provenance,
    trust,
    dataset,
    split,
    head,
    regime,
    eval,
    backbone,
    miou_percent,
    height AS height_pixels,
    width AS width_pixels,
    recipe,
    schedule,
    pretraining,
    pretraining_raw,
    pretraining_data,
    extra_data,
    family,
    timm,
    architecture,
    in_timm,
    params_m AS params_millions,
    params_scope,
    gflops_published,
    flops_unit,
    head_raw,
    seeds,
    source,
    url,
    doubtful,
    remarks,
    notes,
    file,
    imported_unix_seconds,
    hash
FROM evidence_row;
