"""Scores of heads beside TransformerLens' head detector, on the same attention: previous token, duplicate, induction.

python -m benchmarks.roles_peer --transformer_lens_python /tmp/tl/bin/python --output docs/benchmarks/roles_peer
    a minute; writes roles_peer.json and roles_peer.md

TransformerLens is needed here alone and stays out of requirements.txt; install it with
    python -m venv /tmp/tl && /tmp/tl/bin/pip install transformer-lens==4.3.0

Its detector (`error_measure="mul"`) divides the attention on a role's keys by all attention of a document, so by all
its queries; ours by the queries that have such a key. The sums are the same.

Dimension key: N document, L layer, H head, T position.
"""

import argparse
import json
import pathlib
import subprocess
import sys
import tempfile

import numpy as np

ROLES = {"previous": "previous_token_head", "duplicate": "duplicate_token_head", "induction": "induction_head"}


def main():
    arguments = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    arguments.add_argument("--transformer_lens_python", help="a Python that can import transformer_lens")
    arguments.add_argument("--output", type=pathlib.Path, help="path and stem of the files to write")
    arguments.add_argument("--answer", type=pathlib.Path, help=argparse.SUPPRESS)  # as the other Python is called
    args = arguments.parse_args()
    if args.answer:
        return answer(args.answer)
    if not args.transformer_lens_python:
        arguments.error("give --transformer_lens_python; the docstring says how to install it.")
    import jax

    from benchmarks import about

    results = about.describe("roles_peer", jax.devices()[0].device_kind) | {"cases": {}}
    for name, (weights_NLHTT, tokens_NT) in cases().items():
        theirs, version = detected(args.transformer_lens_python, weights_NLHTT, tokens_NT)
        results["versions"]["transformer_lens"] = version
        results["cases"][name] = compared(theirs, *ours(weights_NLHTT, tokens_NT))
    text = page(results)
    print(text)
    if args.output:
        about.write(args.output, results, text)


def cases() -> dict[str, tuple[np.ndarray, np.ndarray]]:
    """By name, attention (N, L, H, T, T) and tokens (N, T): models with a head by hand, and attention at random."""
    from tests.eval.planted import planted

    found = {}
    for head in ROLES:
        plant = planted(head, seq_len=64, d_k=64)
        found[f"a planted head: {head}"] = np.moveaxis(plant.attention(), 0, 1), plant.documents.tokens
    rng = np.random.default_rng(0)
    logits_NLHTT = np.where(np.tri(96, dtype=bool), 3 * rng.normal(size=(16, 4, 8, 96, 96)), -np.inf)
    weights_NLHTT = np.exp(logits_NLHTT - logits_NLHTT.max(-1, keepdims=True))
    found["random, 4 layers of 8 heads"] = (
        weights_NLHTT / weights_NLHTT.sum(-1, keepdims=True),
        rng.integers(30, size=(16, 96)),
    )
    return found


def ours(weights_NLHTT: np.ndarray, tokens_NT: np.ndarray) -> tuple[dict, dict]:
    """By role, each head's score (L, H), and the share of queries that it is a mean over."""
    from eval.heads.roles import sums, texts

    num, length = tokens_NT.shape
    lengths = np.full(num, length, np.int32)
    copies, padded = texts.of_copies(tokens_NT, lengths), np.pad(tokens_NT, ((0, 0), (0, 1)))
    seen = texts.Texts(padded, lengths, np.arange(num, dtype=np.int32), copies, ("duplicate", "induction"))
    found = sums.of_attention(weights_NLHTT, seen, True)
    parts = {"previous": (found.near_OLHF[sums.NEAR.index(1)], found.tokens_F)}
    for relation, role in enumerate(seen.relations):
        parts[role] = found.mass_RLHF[relation], found.queries_RF[relation]
    scores = {role: mass.sum(-1) / queries.sum() for role, (mass, queries) in parts.items()}
    return scores, {role: float(queries.sum() / num / length) for role, (_, queries) in parts.items()}


def compared(theirs: dict, scores: dict, shares: dict) -> dict:
    """By role, of the head that ours puts first: both scores, `share`, over all heads the largest difference between
    theirs and ours on all queries, and whether both put the same head first."""
    rows = {}
    for role in ROLES:
        first = np.unravel_index(scores[role].argmax(), scores[role].shape)
        rows[role] = {
            "ours": float(scores[role][first]),
            "theirs": float(theirs[role][first]),
            "share": shares[role],
            "difference": float(np.abs(scores[role] * shares[role] - theirs[role]).max()),
            "same_first": bool(theirs[role][first] == theirs[role].max()),
        }
    return rows


def detected(python: str, weights_NLHTT: np.ndarray, tokens_NT: np.ndarray) -> tuple[dict, str]:
    """TransformerLens' scores (L, H) by role, in the mean over documents, and its version."""
    with tempfile.TemporaryDirectory() as folder:
        arrays = pathlib.Path(folder, "arrays.npz")
        np.savez(arrays, weights=weights_NLHTT, tokens=tokens_NT)
        subprocess.run([python, __file__, "--answer", str(arrays)], check=True, stdout=sys.stderr)
        found = json.loads(arrays.with_suffix(".json").read_text())
    return {role: np.array(scores) for role, scores in found["scores"].items()}, found["version"]


def answer(arrays: pathlib.Path) -> None:
    """In the Python that has TransformerLens: its scores of the arrays, beside them as JSON."""
    import importlib.metadata
    import types

    import torch
    from transformer_lens.head_detector import detect_head

    with np.load(arrays) as held:
        weights_NLHTT, tokens_NT = held["weights"], held["tokens"]
    _, layers, heads, length, _ = weights_NLHTT.shape
    kind = dict(device="cpu", dtype=torch.float64)
    cfg = types.SimpleNamespace(n_ctx=length + 1, n_layers=layers, n_heads=heads, **kind)
    model = types.SimpleNamespace(cfg=cfg, to_tokens=lambda tokens: tokens)  # all that the detector asks of one
    totals = dict.fromkeys(ROLES, 0)
    for weights_LHTT, tokens_T in zip(weights_NLHTT, tokens_NT, strict=True):
        tokens = torch.as_tensor(tokens_T[None].astype(np.int64))
        cache = {("pattern", layer, "attn"): torch.as_tensor(weights_LHTT[layer]).double() for layer in range(layers)}
        for role, name in ROLES.items():
            totals[role] = totals[role] + detect_head(model, tokens, name, cache=cache) / len(tokens_NT)
    found = {"scores": {role: total.tolist() for role, total in totals.items()}}
    found["version"] = importlib.metadata.version("transformer-lens")
    arrays.with_suffix(".json").write_text(json.dumps(found))


def page(results: dict) -> str:
    from benchmarks import about

    lines = [
        "# Scores of heads beside TransformerLens' detector\n",
        about.heading(results),
        f"TransformerLens {results['versions']['transformer_lens']}, on the same attention.\n",
        "Theirs divides by all queries, ours by those that have a key of the role, a share of them; the difference is",
        "between theirs and ours times that share, the largest of all heads.\n",
        "| attention | role | best head: ours | theirs | share | largest difference | same head first |",
        "|---|---|---|---|---|---|---|",
    ]
    for case, rows in results["cases"].items():
        for role, row in rows.items():
            scores = f"{row['ours']:.4f} | {row['theirs']:.4f} | {row['share']:.3f} | {row['difference']:.1e}"
            lines.append(f"| {case} | {role} | {scores} | {'yes' if row['same_first'] else 'no'} |")
    return "\n".join(lines) + "\n"


if __name__ == "__main__":
    main()
