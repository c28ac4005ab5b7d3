"""Cards as people read them: Markdown from the fields of card.json."""

from collections.abc import Sequence
from typing import Any

from transferlab.analysis.formats import NOTHING, count, points
from transferlab.records import Record


def run_text(card: Record) -> str:
    """Return the card of a run's weights in Markdown."""
    card = _inert(card)
    training, weights = card["training"], card["weights"] or {}
    lines = [
        f"# Weights of run {card['name']}",
        "",
        f"{training['strategy']} on {card['target']['name']}, from {_origin(card['source'])}.",
        "",
        *_table(
            [
                ("file", weights.get("file")),
                ("weights SHA-256", weights.get("sha256")),
                ("backbone", f"{card['backbone']['name']}, licence {card['backbone']['licence']}"),
                *_target(card["target"]),
                *_source(card["source"]),
                ("transforms SHA-256", card["transforms_sha256"]),
                ("training subset SHA-256", card["subset_sha256"]),
                ("labels", _labels(card["label_map"])),
                ("settings", _pairs({"lr": training["lr"]} | training["settings"])),
                ("steps, batch, seed", f"{training['steps']}, {training['batch_size']}, "
                                       f"{training['seed']}"),
                ("sets of weights compared", training["trials_in_run"]),
                ("commit", card["commit"]),
                ("hardware", card["hardware"]),
                ("energy", energy_text(card["energy"])),
            ]
        ),
        "",
        "## Scores",
        "",
        *_scores(card["metrics"]),
        "",
        *_groups(card["target"].get("composition")),
        _copies(card["near_duplicates"]),
        "",
        f"Card SHA-256: {card['card_sha256']}",
    ]  # fmt: skip
    return "\n".join(lines) + "\n"


def study_text(card: Record) -> str:
    """Return the card of a study in Markdown."""
    card = _inert(card)
    lines = [
        f"# Study {card['name']}",
        "",
        f"Made by `{card['command']}`.",
        "",
        "## Verdicts",
        "",
        *([f"- {_verdict(own)}" for own in card["verdicts"]] or ["None: no family was declared."]),
        "",
        "## Data, weights and terms",
        "",
    ]
    for target in card["targets"]:
        lines += [*_table(_target(target)), "", *_groups(target.get("composition"))]
    for source in card["sources"]:
        lines += [*_table(_source(source)), ""]
    for backbone in card["backbones"]:
        lines.append(f"- backbone {backbone['name']}, licence {backbone['licence']}")
    lines += ["", "## Arms", "", "| cell | arm | settings | trials | seeds |"]
    lines.append("| --- | --- | --- | --- | --- |")
    lines += [_arm_row(arm) for arm in card["arms"]]
    lines += [
        "",
        *[_copies(found) for found in card["near_duplicates"]],
        f"Energy: {energy_text(card['energy'])}.",
        f"Commit: {', '.join(card['commits']) or NOTHING}. "
        f"Hardware: {', '.join(card['hardware']) or NOTHING}.",
        f"Card SHA-256: {card['card_sha256']}",
    ]
    return "\n".join(lines) + "\n"


def energy_text(energy: Record) -> str:
    """Say an energy record in words."""
    if energy["kwh"] is None:
        return "unknown"
    runs = count(int(energy["runs"]), "run")
    more = f", {energy['runs_unstated']} not stated" if energy["runs_unstated"] else ""
    return (
        f"{energy['kwh']:.3g} kWh, {energy['co2e_kg']:.3g} kg CO2e, {energy['how']} "
        f"({'; '.join(energy['by'])}; {runs}{more})"
    )


_LIVE = str.maketrans(
    {"&": "&amp;", "<": "&lt;", ">": "&gt;", "`": "'", "[": "\\[", "]": "\\]", "\n": " ", "\r": " "}
)
"""What would be a tag, a link, an image, code or another line in Markdown."""


def _inert(value: Any) -> Any:
    """Return a record whose texts, names of classes among them, are text in Markdown too."""
    if isinstance(value, dict):
        return {_inert(key): _inert(own) for key, own in value.items()}
    if isinstance(value, list):
        return [_inert(own) for own in value]
    return value.translate(_LIVE) if isinstance(value, str) else value


def _verdict(own: Record) -> str:
    said = own["sentence"] or own["verdict"]
    interval = own["ci95"]
    where = f" Scope: {own['scope']}, {own['n_pairs']} pairs."
    if interval and own["delta"] is not None:
        where += f" Gain {points(own['delta'])} ({points(interval[0])} to {points(interval[1])})."
    return f"**{own['verdict']}**: {said}{where}"


def _arm_row(arm: Record) -> str:
    seeds = ", ".join(str(run["seed"]) for run in arm["runs"]) or NOTHING
    cells = (arm["cell"], arm["arm"], _pairs(arm["hyper_parameters"]), arm["tuning"]["trials"])
    return "| " + " | ".join(_cell(value) for value in (*cells, seeds)) + " |"


def _origin(source: Record) -> str:
    return "random weights" if source["id"] is None else str(source["name"])


def _target(target: Record) -> list[tuple[str, Any]]:
    further = [
        (f"also tested on {name}", f"fingerprint {own['fingerprint']}, licence {own['licence']}")
        for name, own in target["also_test"].items()
    ]
    return [
        ("target", f"{target['name']}, licence {target['licence']}"),
        ("target's fingerprint", target["fingerprint"]),
        ("split SHA-256", target["split_sha256"]),
        ("test items SHA-256", target["test_ids_sha256"]),
        ("images", _pairs(target["images"])),
        *further,
    ]


def _source(source: Record) -> list[tuple[str, Any]]:
    if source["id"] is None:
        return [("source", "none: random weights")]
    return [
        ("source", f"{source['name']}, licence {source['licence']}"),
        ("source's id", source["id"]),
        ("source's fingerprint", source["fingerprint"]),
        ("source's classes", _pairs(((source["composition"] or {}).get("classes") or {})
                                    .get("train") or {})),
    ]  # fmt: skip


def _groups(composition: Record | None) -> list[str]:
    """A table of images by class, then one by value of each column."""
    if not composition:
        return []
    blocks = {"class": composition["classes"]} | composition["columns"]
    lines: list[str] = []
    for name, by_split in blocks.items():
        splits = list(by_split)
        lines += [f"| {_cell(name)} | {' | '.join(splits)} |", "| --- |" + " --- |" * len(splits)]
        for value in dict.fromkeys(v for own in by_split.values() for v in own):
            numbers = (str(by_split[split].get(value, 0)) for split in splits)
            lines.append(f"| {_cell(value)} | {' | '.join(numbers)} |")
        lines.append("")
    if composition["groups"]:
        lines += [f"Groups: {_pairs(composition['groups'])}.", ""]
    return lines


def _scores(metrics: Record) -> list[str]:
    parts = {k: v for k, v in metrics.items() if v and k != "also_test"}
    parts |= {f"{name} (further)": v for name, v in (metrics.get("also_test") or {}).items()}
    return [f"- {part}: {_pairs(own)}" for part, own in parts.items()] or ["None."]


def _copies(found: Record | None) -> str:
    if not found:
        return "Copies of test images among those learned from: not looked for."
    parts = []
    for name in ("train_test", "source_test"):
        own = found.get(name)
        said = "not known" if own is None else f"{own['exact']} exact, {own['near']} near"
        parts.append(f"{name.replace('_', ' and ')} {said}")
    seen = found.get("source_validation")
    if seen and seen["exact"] + seen["near"]:
        parts.append(f"source and validation {seen['exact']} exact, {seen['near']} near")
    return f"Copies of test images among those learned from: {'; '.join(parts)}."


def _labels(names: dict[str, str]) -> str:
    shown = [f"{number} {name}" for number, name in list(names.items())[:20]]
    return ", ".join(shown) + (f", … ({len(names)} in all)" if len(names) > 20 else "")


def _pairs(values: dict[str, Any]) -> str:
    shown = [f"{key} {_number(value)}" for key, value in list(values.items())[:20]]
    more = f", … ({len(values)} in all)" if len(values) > 20 else ""
    return ", ".join(shown) + more or NOTHING


def _number(value: Any) -> str:
    return f"{value:.4g}" if isinstance(value, float) else str(value)


def _table(rows: Sequence[tuple[str, Any]]) -> list[str]:
    head = ["| | |", "| --- | --- |"]
    return head + [f"| {name} | {_cell(NOTHING if v is None else v)} |" for name, v in rows]


def _cell(value: Any) -> str:
    return str(value).replace("|", "\\|").replace("\n", " ")
