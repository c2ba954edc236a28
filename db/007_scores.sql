-- Schema 7: scores by name, of evaluations that have others than mIoU: how well unknown objects are told apart.

CREATE TABLE evaluation_score (
    evaluation_id INTEGER NOT NULL REFERENCES evaluation (evaluation_id) ON DELETE CASCADE,
    name TEXT NOT NULL,                  -- with its unit, e.g. ood_auprc_percent
    value REAL NOT NULL,
    PRIMARY KEY (evaluation_id, name)
) STRICT, WITHOUT ROWID;

-- Every score by name of every latest evaluation.
CREATE VIEW scores AS
SELECT
    v.evaluation,
    v.run_id,
    v.backbone,
    v.pretraining,
    v.head,
    v.resolution_pixels,
    v.step,
    v.data,
    v.split,
    v.protocol,
    s.name,
    s.value
FROM evaluation_score s
JOIN evaluation e USING (evaluation_id)
JOIN evaluations v ON v.evaluation = e.hash
WHERE v.latest;
