"""PyTorch's side of benchmarks/attention.py and benchmarks/accelerator.py, in a process of its own, maybe of another
Python.

Run by the benchmark, not by hand, with the number of threads and the device, `cpu` or `cuda`: it reads one JSON request
a line and answers with one JSON line. `{"case": ...}` builds a case, `{"run": true}` runs it once and answers with the
seconds until its results are ready.
"""

import json
import sys
import time

import torch
import torch.nn.functional as F


def attention_case(batch, length, heads, d_k, backward, dtype="float32"):
    shape, dtype = (batch, heads, length, d_k), getattr(torch, dtype)
    q, k, v = (torch.randn(shape, dtype=dtype, requires_grad=backward) for _ in range(3))
    d_out = torch.randn(shape, dtype=dtype)

    def run():
        out = F.scaled_dot_product_attention(q, k, v, is_causal=True)
        if backward:
            torch.autograd.grad(out, (q, k, v), d_out)

    return run


class Block(torch.nn.Module):
    def __init__(self, d_model, heads, d_ff):
        super().__init__()
        self.heads = heads
        self.norm_attention, self.norm_mlp = torch.nn.RMSNorm(d_model), torch.nn.RMSNorm(d_model)
        self.qkv = torch.nn.Linear(d_model, 3 * d_model, bias=False)
        self.out = torch.nn.Linear(d_model, d_model, bias=False)
        self.mlp_in = torch.nn.Linear(d_model, d_ff, bias=False)
        self.mlp_out = torch.nn.Linear(d_ff, d_model, bias=False)

    def forward(self, x):
        batch, length, d_model = x.shape
        qkv = self.qkv(self.norm_attention(x)).view(batch, length, 3, self.heads, d_model // self.heads)
        q, k, v = qkv.permute(2, 0, 3, 1, 4)
        seen = F.scaled_dot_product_attention(q, k, v, is_causal=True)
        x = x + self.out(seen.transpose(1, 2).reshape(batch, length, d_model))
        return x + self.mlp_out(F.gelu(self.mlp_in(self.norm_mlp(x)), approximate="tanh"))


class Model(torch.nn.Module):
    """The same pre-norm Transformer as mha/transformer.py."""

    def __init__(self, vocab, length, d_model, heads, d_ff, layers):
        super().__init__()
        self.embed = torch.nn.Embedding(vocab, d_model)
        self.positions = torch.nn.Embedding(length, d_model)
        self.blocks = torch.nn.ModuleList(Block(d_model, heads, d_ff) for _ in range(layers))
        self.norm_final = torch.nn.RMSNorm(d_model)
        self.unembed = torch.nn.Linear(d_model, vocab, bias=False)

    def forward(self, tokens):
        x = self.embed(tokens) + self.positions.weight
        for block in self.blocks:
            x = block(x)
        return self.unembed(self.norm_final(x))


def step_case(batch, length, heads, d_k, vocab, layers):
    d_model = heads * d_k
    model = Model(vocab, length, d_model, heads, 4 * d_model, layers)
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-3, fused=True)
    tokens = torch.randint(vocab, (batch, length + 1))

    def run():
        optimizer.zero_grad(set_to_none=True)
        logits = model(tokens[:, :-1])
        F.cross_entropy(logits.reshape(-1, vocab), tokens[:, 1:].reshape(-1)).backward()
        optimizer.step()

    return run


def main():
    torch.manual_seed(0)
    torch.set_num_threads(int(sys.argv[1]))
    device = sys.argv[2]
    if device == "cuda" and not torch.cuda.is_available():
        sys.exit("PyTorch sees no CUDA device.")
    synchronize = torch.cuda.synchronize if device == "cuda" else lambda: None
    print(json.dumps({"version": torch.__version__}), flush=True)
    run = None
    for line in sys.stdin:
        request = json.loads(line)
        if "case" in request:
            build = {"attention": attention_case, "step": step_case}[request["case"]]
            with torch.device(device):
                run = build(**request["shape"])
            print(json.dumps({"ready": True}), flush=True)
        else:
            synchronize()
            start = time.perf_counter()
            run()
            synchronize()
            print(json.dumps({"seconds": time.perf_counter() - start}), flush=True)


if __name__ == "__main__":
    main()
