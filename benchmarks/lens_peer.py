"""TransformerLens's side of benchmarks/ablation.py: a hooked forward pass a head, in a process of its own.

Run by the benchmark, in an environment with TransformerLens below 3: PYTHON lens_peer.py WEIGHTS.npz THREADS. Each line
on its input is answered by one of JSON: the seconds that it took to close every head, and the losses (L, H, windows).
"""

import json
import sys
import time

import numpy as np
import torch
from transformer_lens import HookedTransformer, HookedTransformerConfig


def model_of(given) -> HookedTransformer:
    """The model with the given weights, all biases zero."""
    layers, heads, d_k, d_model, d_ff, length, vocab = given["shape"].tolist()
    sizes = dict(n_layers=layers, n_heads=heads, d_head=d_k, d_model=d_model, d_mlp=d_ff, n_ctx=length, d_vocab=vocab)
    form = dict(act_fn="gelu_new", normalization_type="RMS", attention_dir="causal", eps=1e-6, device="cpu")
    model = HookedTransformer(HookedTransformerConfig(**sizes, **form))
    state = {name: torch.zeros_like(leaf) if ".b_" in name else leaf for name, leaf in model.state_dict().items()}
    own = {name: torch.tensor(given[name]) for name in given.files if name not in ("shape", "tokens")}
    model.load_state_dict({**state, **own})
    return model


def closed_losses(model: HookedTransformer, tokens: torch.Tensor) -> torch.Tensor:
    """Summed loss of each window with each head closed alone."""
    inputs, targets = tokens[:, :-1], tokens[:, 1:]

    def closing(head: int):
        def hook(z, hook):
            z[:, :, head] = 0
            return z

        return hook

    found = []
    for layer in range(model.cfg.n_layers):
        for head in range(model.cfg.n_heads):
            logits = model.run_with_hooks(inputs, fwd_hooks=[(f"blocks.{layer}.attn.hook_z", closing(head))])
            losses = torch.nn.functional.cross_entropy(logits.flatten(0, 1), targets.flatten(), reduction="none")
            found.append(losses.view(targets.shape).sum(1))
    return torch.stack(found).view(model.cfg.n_layers, model.cfg.n_heads, -1)


def main() -> None:
    torch.set_grad_enabled(False)
    torch.set_num_threads(int(sys.argv[2]))
    given = np.load(sys.argv[1])
    model, tokens = model_of(given), torch.tensor(given["tokens"].astype(np.int64))
    for _ in sys.stdin:
        began = time.perf_counter()
        losses = closed_losses(model, tokens)
        print(json.dumps({"seconds": time.perf_counter() - began, "losses": losses.tolist()}), flush=True)


if __name__ == "__main__":
    main()
