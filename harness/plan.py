"""Estimate what a sweep needs before anything is queued: `python -m harness.plan experiment=qwen3_1p7b [KEY=VALUE …]`.

It shows runs, tokens, memory of each rank by part and whether it fits, disk and device-hours. It reads no weights and no training
data.
"""

from __future__ import annotations

import argparse
import itertools
import json
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path

from harness.planning.cost import GIB, GPUS, Rates, assumed_rates, device_hours, disk_bytes, measured_rates, work
from harness.planning.memory import MOMENTS, Part, memory_parts, peak
from harness.planning.shape import Shape, shape_config
from harness.settings.command import exit_with
from harness.settings.config import Config


def parser() -> argparse.ArgumentParser:
    options = argparse.ArgumentParser(prog="python -m harness.plan", description=__doc__.split("\n")[0])
    options.add_argument("overrides", nargs="*", help="as for python -m harness, sweeps included: method=cppo,dppo seed=1,2,3")
    options.add_argument("--gpu", choices=sorted(GPUS), help="whether a rank fits, and device-hours from its data sheet")
    options.add_argument("--like", type=Path, metavar="RUN", help="device-hours from the rates and lengths of this run's folder")
    options.add_argument("--mean-response", type=float, metavar="TOKENS", help="default: of --like, else half the limit")
    options.add_argument("--measure", action="store_true", help="run two steps here in a process of their own and compare")
    options.add_argument("--json", action="store_true", help="settings, runs and estimates for a program")
    return options


def main(words: list[str]) -> int:
    options = parser().parse_intermixed_args(words)
    plan = make_plan(options)
    if options.measure:
        if plan["ranks"] > 1:
            raise ValueError("--measure runs one process: leave cluster.ranks=… out")
        if plan["num_points"] > 1:
            raise ValueError(f"--measure runs one setting, and these are {plan['num_points']}: sweep over method and seed alone")
        from harness.planning.measure import measure

        plan["measured"] = measure(plan["runs"][0]["overrides"])
    print(json.dumps(plan, indent=2) if options.json else "\n".join(lines(plan)))
    return 0


def make_plan(options: argparse.Namespace) -> dict:
    from harness.settings.compose import compose_config
    from harness.settings.words import readable

    runs = cells(readable(options.overrides))
    distinct = {without_seed(run): run for run in runs}
    composed = {key: compose_config(run) for key, run in distinct.items()}  # so that errors in any of them show
    points = {key: json.dumps(settings_of(config)) for key, config in composed.items()}  # most runs differ in the method alone
    unique = {point: composed[key] for key, point in points.items()}
    estimates = {point: estimate(config, options) for point, config in unique.items()}
    fullest = max(estimates.values(), key=lambda record: record["memory"]["peak_device"])
    return fullest | {
        "runs": [{"overrides": run} for run in runs],
        "num_points": len(estimates),
        "device_hours": summed_hours([estimates[points[without_seed(run)]] for run in runs]),
    }


def estimate(config: Config, options: argparse.Namespace) -> dict:
    """Record of the estimates for one run."""
    shape = Shape(shape_config(config.model))
    rates, mean_response = choose_rates(options, config, shape)
    tokens, parts = work(config, mean_response), memory_parts(config, shape)
    return {
        "steps": config.train.steps,
        "model": {"path": config.model.path, "parameters": shape.num_parameters, "active": shape.num_active},
        "ranks": config.cluster.ranks,
        "tokens": {"mean_response": mean_response} | asdict(tokens),
        "memory": memory_record(parts, options.gpu),
        "disk": disk_bytes(config, shape, tokens),
        "device_hours": rates and {"each": device_hours(tokens, rates), "rates": asdict(rates)},
        "settings": settings_of(config),
    }


def cells(words: Sequence[str]) -> list[list[str]]:
    """Overrides of each run: every combination of the values swept on the command line and in the experiment's own sweep."""
    from hydra import compose
    from hydra.core.override_parser.overrides_parser import OverridesParser

    from harness.settings.compose import composition

    parse = OverridesParser.create().parse_overrides
    given = parse(list(words))
    with composition():
        fixed = [override.input_line for override in given if not override.is_sweep_override()]
        swept = compose("config", overrides=fixed, return_hydra_config=True).hydra.sweeper.params or {}
    keys = {override.get_key_element() for override in given}
    axes = [*parse([f"{key}={value}" for key, value in swept.items() if key not in keys]), *given]
    return [list(cell) for cell in itertools.product(*map(choices, axes))]


def choices(override) -> list[str]:
    if not override.is_sweep_override():
        return [override.input_line]
    return [f"{override.get_key_element()}={value}" for value in override.sweep_string_iterator()]


def without_seed(run: list[str]) -> tuple[str, ...]:
    return tuple(word for word in run if not word.startswith("seed="))


def choose_rates(options: argparse.Namespace, config: Config, shape: Shape) -> tuple[Rates | None, float]:
    """(rates, mean response length). Rates are None without --like and --gpu."""
    limit, given = config.rollout.max_response_length, options.mean_response
    if given is not None and not 0 < given <= limit:
        raise ValueError(f"--mean-response {given:g}: above 0 and at most {limit}, the run's rollout.max_response_length")
    if options.like:
        rates, length = measured_rates(options.like)
        return rates, given or length
    length = given or limit / 2
    return (assumed_rates(GPUS[options.gpu], config, shape, length) if options.gpu else None), length


def memory_record(parts: list[Part], gpu: str | None) -> dict:
    by_moment = {moment: {part.name: part.bytes for part in parts if moment in part.moments} for moment in MOMENTS}
    record = by_moment | {"peak_device": peak(parts, device=True), "peak_host": peak(parts, device=False), "peak": peak(parts)}
    if gpu:
        record |= {"gpu": gpu, "gpu_bytes": int(GPUS[gpu].memory), "fits": record["peak_device"] <= GPUS[gpu].memory}
    return record


def summed_hours(runs: list[dict]) -> dict | None:
    """Device-hours over runs: `each` is their mean, `all` their sum; `rates` are those of the first run. None if unknown."""
    hours = [run["device_hours"] for run in runs]
    if None in hours:
        return None
    total = sum(run_hours["each"] for run_hours in hours)
    return {"each": round(total / len(runs), 2), "all": round(total, 1), "rates": hours[0]["rates"]}


def settings_of(config: Config) -> dict:
    """All settings but method and seed: those that decide a run's cost."""
    record = asdict(config)
    del record["method"], record["seed"]
    return record


def lines(plan: dict) -> list[str]:
    """The plan as lines of text."""
    model, tokens, memory, hours = plan["model"], plan["tokens"], plan["memory"], plan["device_hours"]
    several, each = plan["num_points"] > 1, f"of {plan['steps']} steps, {plan['ranks']} rank(s) each"
    active = f", {model['active'] / 1e9:.2f} B active" if model["active"] != model["parameters"] else ""
    sampled, evaluated = (f"{tokens[key] / 1e6:,.1f} M" for key in ("sampled", "evaluated"))
    shown = [
        f"{len(plan['runs'])} runs " + (f"at {plan['num_points']} settings" if several else each),
        *(f"  {' '.join(run['overrides'])}" for run in plan["runs"][:3]),
        *(["  …"] if len(plan["runs"]) > 3 else []),
        *([f"the setting that needs most memory, {each}:"] if several else []),
        f"model {model['path']}: {model['parameters'] / 1e9:.3f} B parameters{active}",
        f"response tokens of a run, {tokens['mean_response']:.0f} each: {sampled} to learn from, {evaluated} in evaluations",
        "",
        *memory_lines(memory),
        "",
        "disk of a run: " + ", ".join(f"{name} {amount(size)}" for name, size in plan["disk"].items() if size),
    ]
    if hours:
        mean = " on average" if several else ""
        shown.append(f"device-hours: {hours['each']:,} a run{mean}, {hours['all']:,} in all ({hours['rates']['source']})")
    else:
        shown.append("device-hours: name a measured run with --like RUN, or a GPU with --gpu")
    return shown + measured_lines(plan)


def memory_lines(memory: dict) -> list[str]:
    names = list(dict.fromkeys(name for moment in MOMENTS for name in memory[moment]))
    rows = [[name, *(amount(memory[moment].get(name, 0)) for moment in MOMENTS)] for name in names]
    shown = [f"{'memory of a rank':20}{'while learning':>16}{'while sampling':>16}"]
    shown += [f"  {name:18}{learning:>16}{sampling:>16}" for name, learning, sampling in rows]
    shown.append(f"peak {amount(memory['peak_device'])} on the device, {amount(memory['peak_host'])} of host memory beside it")
    if "gpu" in memory:
        verdict = "fits" if memory["fits"] else "does not fit: raise cluster.ranks, lower train.token_budget or rollout.max_rows"
        shown.append(f"{memory['gpu']}, {amount(memory['gpu_bytes'])}: {verdict}")
    return shown


def measured_lines(plan: dict) -> list[str]:
    measured = plan.get("measured")
    if not measured:
        return []
    estimate = plan["memory"]["peak_device" if measured["device"] == "cuda" else "peak"]
    return [
        "",
        f"measured in two steps on {measured['device']}: peak {amount(measured['peak'])}, estimated {amount(estimate)} "
        f"({estimate / measured['peak']:.2f}×); {measured['rollout']:,.0f} and {measured['learner']:,.0f} tokens/s",
    ]


def amount(num_bytes: int) -> str:
    if not num_bytes:
        return "–"
    return f"{num_bytes / GIB:,.2f} GiB" if num_bytes >= GIB / 10 else f"{num_bytes / 2**20:,.1f} MiB"


if __name__ == "__main__":
    exit_with(main)
