# Copyright 2026 The turingvit_hf authors. Licensed under the Apache License, Version 2.0.
"""Runs over an endpoint that fails: nothing is lost, errors are counted, and only they are asked again."""

import pyarrow.parquet as pq

from tests.curation.fault_server import FaultServer
from tests.curation.run_cases import make_config, write_listing, write_pictures
from turingvit_hf.curation.runs import retry, run


NUM_PICTURES = 9


def test_faults_of_an_endpoint_end_as_counted_errors_and_are_mended_by_a_retry(tmp_path):
    folder = tmp_path / "pictures"
    write_listing(folder, write_pictures(folder, NUM_PICTURES))
    with FaultServer() as server:
        model = {"model": "served", "base_url": server.base_url, "max_retries": 1, "max_wait": 0.2}
        model["give_up_after"] = 1000
        models = {"caption": {"captioners": [model]}, "verify": {"verifiers": [{**model, "model": "judge"}]}}
        config = make_config(folder, **models)
        # one image in three cannot be described for now, and some of the others take a second try
        server.fail("500", times=None, when=lambda request: "caption" in request.prompt and is_one_in_three(request))
        server.fail("429", times=1, retry_after="0.05", when=lambda request: request.images[0][-20] % 4 == 0)
        server.fail("truncated json", times=1, when=lambda request: "hallucinated_phrases" in request.prompt)
        first = run(config, tmp_path / "run")
        assert first.num_rows == NUM_PICTURES == first.num_kept + first.num_dropped + first.num_errors
        assert first.num_errors > 0
        answered = dict(server.counts)
        server.heal()
        second = retry(tmp_path / "run")
        again = {key for key, number in server.counts.items() if number > answered.get(key, 0)}
    assert second.num_errors == 0
    assert second.num_kept == NUM_PICTURES
    rows = pq.read_table(tmp_path / "run" / "rows.parquet").to_pylist()
    assert {row["num_candidates"] for row in rows} == {6}
    assert all(row["verifier"] for row in rows)
    # what had been answered well was not asked again
    assert len(again) <= first.num_errors * (5 + 6)
    assert bool(again) == bool(first.num_errors)


def is_one_in_three(request):
    return sum(request.images[0]) % 3 == 0
