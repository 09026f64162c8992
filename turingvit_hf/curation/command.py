# Copyright 2026 The turingvit_hf authors. Licensed under the Apache License, Version 2.0.
"""The command `turingvit curate`: it parses arguments, calls the Python API and shows what comes of it.

Heavy imports stand inside: `--help` waits for those of the package alone.
"""

import json
from pathlib import Path
from typing import Annotated, Any

import typer

from turingvit_hf.curation.options import (
    Address,
    ConfigFile,
    Cpus,
    EngineName,
    Folder,
    Gpus,
    Limit,
    LogJson,
    Overrides,
    Sample,
    Workers,
    engine_options,
    shard_range,
    with_limits,
)
from turingvit_hf.curation.report_commands import explain, report, tune
from turingvit_hf.curation.speaking import speaking


app = typer.Typer(
    help="Curate image-text and video-text data: measure, caption, verify, score, ground.",
    no_args_is_help=True,
    rich_markup_mode=None,
)


@app.command(
    short_help="Show what a run would do, and do nothing.",
    epilog="Example: turingvit curate plan --set 'sources=[{path: my/pictures}]'",
)
def plan(
    config: ConfigFile = None,
    overrides: Overrides = None,
    limit: Limit = None,
    sample: Sample = None,
    engine: EngineName = "local",
    as_json: Annotated[bool, typer.Option("--json", help="As JSON.")] = False,
) -> None:
    """Show the resolved config, rows, shards, stages, model calls and tokens, and packages that are missing.

    No model is touched and nothing is written.
    """
    with speaking():
        from turingvit_hf.curation.config_files import load_config
        from turingvit_hf.curation.plans import plan as make_plan

        found = make_plan(load_config(config, with_limits(overrides, limit, sample)), engine=engine)
        typer.echo(json.dumps(found.to_dict(), indent=2) if as_json else found.describe())


@app.command(
    short_help="Curate, or go on where a run stopped.",
    epilog="Examples: turingvit curate run my-run --set 'sources=[{path: my/pictures}]'; turingvit curate run my-run "
    "--config curate.yaml --num-workers 4; turingvit curate run my-run --config curate.yaml --engine ray --address "
    "ray://head:10001 --num-workers 8 --num-gpus embed=1",
)
def run(
    out: Folder,
    config: ConfigFile = None,
    overrides: Overrides = None,
    limit: Limit = None,
    sample: Sample = None,
    engine: EngineName = "local",
    num_workers: Workers = 1,
    num_cpus: Cpus = None,
    num_gpus: Gpus = None,
    address: Address = None,
    force: Annotated[
        bool,
        typer.Option("--force", help="Go on with another config; what does not depend on the changes stays as it is."),
    ] = False,
    from_stage: Annotated[
        str | None,
        typer.Option(
            "--from-stage", help="Do this stage and those after it anew, such as score.", show_default="none"
        ),
    ] = None,
    shards: Annotated[
        str | None,
        typer.Option(
            "--shards",
            metavar="A:B",
            help="Do shards A to B - 1 only, for jobs of a cluster that share a run folder; a last run without it "
            "does the rest.",
            show_default="all",
        ),
    ] = None,
    log_json: LogJson = None,
) -> None:
    """Curate. The same command goes on where a run was stopped or killed; answered calls are not asked again.

    Without --config, an existing run goes on with its own config, which --set, --limit and --sample change as far as
    --force allows.

    Exit codes: 0 finished; 1 an option, the config or the data is at fault; 3 more rows ended as errors than
    max_error_rate allows.
    """
    with speaking():
        from turingvit_hf.curation.config_files import load_config, with_overrides
        from turingvit_hf.curation.runs import run as do_run
        from turingvit_hf.curation.state import RunFolder

        changes = with_limits(overrides, limit, sample)
        is_known = config is None and RunFolder.exists(out)
        wanted = with_overrides(RunFolder(out).config, changes) if is_known else load_config(config, changes)
        outcomes = do_run(
            wanted,
            out,
            engine=engine_options(engine, num_workers, num_cpus, num_gpus, address),
            force=force,
            from_stage=from_stage,
            shards=shard_range(shards),
            progress=_progress(log_json),
        )
        _finish(outcomes, out)


@app.command(
    short_help="Try rows again that ended as errors.",
    epilog="Example: turingvit curate retry my-run",
)
def retry(
    out: Folder,
    engine: EngineName = "local",
    num_workers: Workers = 1,
    num_cpus: Cpus = None,
    num_gpus: Gpus = None,
    address: Address = None,
    log_json: LogJson = None,
) -> None:
    """Try the rows again that ended as errors, at most max_attempts times in all, and no others."""
    with speaking():
        from turingvit_hf.curation.runs import retry as do_retry

        options = engine_options(engine, num_workers, num_cpus, num_gpus, address)
        _finish(do_retry(out, engine=options, progress=_progress(log_json)), out)


@app.command(short_help="Show how far a run has come.", epilog="Example: turingvit curate status my-run")
def status(out: Folder, as_json: Annotated[bool, typer.Option("--json", help="As JSON.")] = False) -> None:
    """Show of each stage how many shards and rows are done, and what calls of models took."""
    with speaking():
        from turingvit_hf.curation.runs import status as find_status

        found = find_status(out)
        if as_json:
            typer.echo(json.dumps(found, indent=2))
            return
        typer.echo(f"{found['folder']}: {'finished' if found['is_finished'] else 'not finished'}")
        for entry in found["stages"]:
            typer.echo(
                f"{entry['stage'] + ':':<13}{entry['done']} of {entry['of']} done; {entry['rows']:,} rows, "
                f"{entry['kept']:,} kept, {sum(entry['dropped'].values()):,} dropped, {entry['errors']:,} errors, "
                f"{entry['seconds']:,.0f} s{_describe_usage(entry['usage'])}"
            )


@app.command(
    short_help="Score anew from stored embeddings.",
    epilog="Example: turingvit curate score my-run --set score.tau=0.01 --set thresholds.score.top_fraction=0.3",
)
def score(
    out: Folder,
    overrides: Overrides = None,
    engine: EngineName = "local",
    num_workers: Workers = 1,
    log_json: LogJson = None,
) -> None:
    """Score a run anew, with other settings of the section score or of its thresholds; no image or caption is made."""
    with speaking():
        from turingvit_hf.curation.runs import score as do_score

        options = engine_options(engine, num_workers, None, None, None)
        _finish(do_score(out, overrides or (), engine=options, progress=_progress(log_json)), out)


@app.command(
    short_help="Write the kept rows with their media.",
    epilog="Example: turingvit curate export my-run curated --form webdataset, then turingvit pretrain --recipe "
    "tiny/stage2 --set 'data.sources=[{path: curated}]' --out my-tower",
)
def export(
    out: Folder,
    target: Annotated[Path, typer.Argument(help="Folder to write; refused if it is not empty.")],
    form: Annotated[str, typer.Option(help="webdataset or parquet.")] = "webdataset",
    rows_per_file: Annotated[int, typer.Option(min=1, help="At most so many rows a file.")] = 10_000,
    overwrite: Annotated[
        bool, typer.Option("--overwrite", help="Replace an earlier export, never anything else.")
    ] = False,
) -> None:
    """Write the kept rows with media, best caption and provenance; `turingvit pretrain` and `datasets` read them."""
    with speaking():
        from turingvit_hf.curation.exports import export as do_export

        done = do_export(out, target, form=form, rows_per_file=rows_per_file, overwrite=overwrite)
        lost = f"; {done.num_lost:,} could not be read any more, see export.json" if done.num_lost else ""
        typer.echo(f"{done.num_rows:,} rows in {done.folder}{lost}")


app.command(short_help="Write a page that shows what a run did.", epilog="Example: turingvit curate report my-run")(
    report
)
app.command(
    short_help="Show what other thresholds would keep.",
    epilog="Example: turingvit curate tune my-run --set quality.min_side=128 --set score.top_fraction=0.3",
)(tune)
app.command(
    short_help="Show all that is known of a sample.",
    epilog="Example: turingvit curate explain my-run a6c77e53 --figure sample.png",
)(explain)


def _progress(as_json: bool | None) -> Any:
    from turingvit_hf.curation.progress import RunProgress

    return RunProgress(as_json, write=lambda line: typer.echo(line, err=True))


def _finish(outcomes: Any, out: Path) -> None:
    if outcomes is None:
        typer.echo(f"shards are done as far as they can be; the rest waits for the others: turingvit curate run {out}")
        return
    typer.echo(outcomes.describe())
    typer.echo(f"next: turingvit curate export {out} curated")


def _describe_usage(usage: dict[str, Any]) -> str:
    if not usage:
        return ""
    cost = f", cost {usage['cost']:.4f}" if usage.get("cost") else ""
    missing = f", {usage['num_failures']:,} without a usable answer" if usage.get("num_failures") else ""
    return (
        f"; {usage.get('num_calls', 0):,} calls, {usage.get('prompt_tokens', 0):,} + "
        f"{usage.get('completion_tokens', 0):,} tokens{cost}{missing}"
    )
