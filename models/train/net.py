"""The llama architecture in plain PyTorch, with Hugging Face's names and its half-split rotary order."""
import torch
import torch.nn.functional as F
from torch import nn

CONFIG = {
    "hidden_size": 256,  # every row of every matrix is 256 or 512: whole super-blocks of K-quants
    "intermediate_size": 512,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "head_dim": 64,
    "vocab_size": 1024,
    "max_position_embeddings": 256,
    "rms_norm_eps": 1e-5,
    "rope_theta": 10000.0,
}


class Norm(nn.Module):
    def __init__(self, n, eps):
        super().__init__()
        self.weight, self.eps = nn.Parameter(torch.ones(n)), eps

    def forward(self, x):
        return x * torch.rsqrt(x.pow(2).mean(-1, keepdim=True) + self.eps) * self.weight


def rotary_table(c):
    half = c["head_dim"] // 2
    rates = c["rope_theta"] ** (-torch.arange(half).double() / half)
    angles = torch.outer(torch.arange(c["max_position_embeddings"]).double(), rates)
    return torch.cos(angles).float(), torch.sin(angles).float()


def rotate(x, table):
    """x [batch, heads, time, head_dim]: element i turns with element i + head_dim / 2."""
    cos, sin = (t[: x.shape[2]] for t in table)
    a, b = x.chunk(2, dim=-1)
    return torch.cat((a * cos - b * sin, b * cos + a * sin), dim=-1)


class Attention(nn.Module):
    def __init__(self, c):
        super().__init__()
        self.n_heads, self.n_kv, self.head_dim = c["num_attention_heads"], c["num_key_value_heads"], c["head_dim"]
        dim = c["hidden_size"]
        self.q_proj = nn.Linear(dim, self.n_heads * self.head_dim, bias=False)
        self.k_proj = nn.Linear(dim, self.n_kv * self.head_dim, bias=False)
        self.v_proj = nn.Linear(dim, self.n_kv * self.head_dim, bias=False)
        self.o_proj = nn.Linear(self.n_heads * self.head_dim, dim, bias=False)

    def forward(self, x, table, mask):
        batch, time, _ = x.shape
        split = lambda y, n: y.view(batch, time, n, self.head_dim).transpose(1, 2)
        q = rotate(split(self.q_proj(x), self.n_heads), table)
        k = rotate(split(self.k_proj(x), self.n_kv), table)
        v = split(self.v_proj(x), self.n_kv)
        share = self.n_heads // self.n_kv
        k, v = k.repeat_interleave(share, dim=1), v.repeat_interleave(share, dim=1)
        scores = q @ k.transpose(-2, -1) * self.head_dim ** -0.5 + mask[:time, :time]
        out = torch.softmax(scores, dim=-1) @ v
        return self.o_proj(out.transpose(1, 2).reshape(batch, time, -1))


class FeedForward(nn.Module):
    def __init__(self, c):
        super().__init__()
        self.gate_proj = nn.Linear(c["hidden_size"], c["intermediate_size"], bias=False)
        self.up_proj = nn.Linear(c["hidden_size"], c["intermediate_size"], bias=False)
        self.down_proj = nn.Linear(c["intermediate_size"], c["hidden_size"], bias=False)

    def forward(self, x):
        return self.down_proj(F.silu(self.gate_proj(x)) * self.up_proj(x))


class Layer(nn.Module):
    def __init__(self, c):
        super().__init__()
        self.input_layernorm = Norm(c["hidden_size"], c["rms_norm_eps"])
        self.self_attn = Attention(c)
        self.post_attention_layernorm = Norm(c["hidden_size"], c["rms_norm_eps"])
        self.mlp = FeedForward(c)

    def forward(self, x, table, mask):
        x = x + self.self_attn(self.input_layernorm(x), table, mask)
        return x + self.mlp(self.post_attention_layernorm(x))


class Llama(nn.Module):
    def __init__(self, c):
        super().__init__()
        self.embed_tokens = nn.Embedding(c["vocab_size"], c["hidden_size"])
        self.layers = nn.ModuleList(Layer(c) for _ in range(c["num_hidden_layers"]))
        self.norm = Norm(c["hidden_size"], c["rms_norm_eps"])
        self.table = rotary_table(c)
        n = c["max_position_embeddings"]
        self.mask = torch.full((n, n), float("-inf")).triu(1)
        for parameter in self.parameters():
            if parameter.dim() == 2:
                nn.init.normal_(parameter, std=0.04)

    def forward(self, ids):
        x = self.embed_tokens(ids)
        for layer in self.layers:
            x = layer(x, self.table, self.mask)
        return F.linear(self.norm(x), self.embed_tokens.weight)  # tied: the embedding is the output matrix too
