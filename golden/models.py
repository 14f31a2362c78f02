"""The reference models, in plain PyTorch.

They are written from the papers, from d2l's and timm's definitions, and know
nothing of vitgen: module names give the state_dict names of the originals, and
every formula that a compiler could get wrong (attention, normalization, GELU,
softmax) is spelled out instead of called. `selfcheck` holds the spelled-out
forms to PyTorch's own functions.

Dropout and drop path are absent: goldens are computed with both switched off.
"""

import math

import torch
import torch.nn.functional as F
from torch import nn


def softmax(x):
    e = torch.exp(x - x.amax(-1, keepdim=True))
    return e / e.sum(-1, keepdim=True)


def gelu(x):
    return x * 0.5 * (1 + torch.erf(x / math.sqrt(2)))


def gelu_tanh(x):
    return 0.5 * x * (1 + torch.tanh(math.sqrt(2 / math.pi) * (x + 0.044715 * x**3)))


def silu(x):
    return x / (1 + torch.exp(-x))


def attend(q, k, v, heads, causal=False):
    """softmax(QKᵀ/√d)·V per head. q, k, v, result: [B, T, D]; d = D/heads."""
    B, T, D = q.shape
    q, k, v = (x.reshape(B, T, heads, D // heads).transpose(1, 2) for x in (q, k, v))
    scores = q @ k.transpose(-1, -2) / math.sqrt(D // heads)
    if causal:
        future = torch.ones(T, T, dtype=torch.bool).triu(1)
        scores = scores.masked_fill(future, -math.inf)
    return (softmax(scores) @ v).transpose(1, 2).reshape(B, T, D)


class LayerNorm(nn.Module):
    """(x-µ)/√(σ²+ε)·weight + bias over the last len(shape) dimensions, σ² the biased variance."""

    def __init__(self, *shape, eps=1e-5):
        super().__init__()
        self.weight = nn.Parameter(torch.ones(shape))
        self.bias = nn.Parameter(torch.zeros(shape))
        self.dims, self.eps = tuple(range(-len(shape), 0)), eps

    def forward(self, x):
        d = x - x.mean(self.dims, keepdim=True)
        return d / torch.sqrt((d * d).mean(self.dims, keepdim=True) + self.eps) * self.weight + self.bias


def tokens(conv, image):
    """Patch convolution, then [B, D, H', W'] → [B, H'·W', D]."""
    return conv(image).flatten(2).transpose(1, 2)


def patch_conv(channels, dim, patch):
    return nn.Conv2d(channels, dim, kernel_size=patch, stride=patch)


# --- Dive into Deep Learning -------------------------------------------------


class PatchEmbedding(nn.Module):
    def __init__(self, channels, dim, patch):
        super().__init__()
        self.conv = patch_conv(channels, dim, patch)

    def forward(self, image):
        return tokens(self.conv, image)


class MultiHeadAttention(nn.Module):
    def __init__(self, dim, heads, bias, causal=False):
        super().__init__()
        self.heads, self.causal = heads, causal
        self.W_q = nn.Linear(dim, dim, bias=bias)
        self.W_k = nn.Linear(dim, dim, bias=bias)
        self.W_v = nn.Linear(dim, dim, bias=bias)
        self.W_o = nn.Linear(dim, dim, bias=bias)

    def forward(self, x):
        return self.W_o(attend(self.W_q(x), self.W_k(x), self.W_v(x), self.heads, self.causal))


class AddNorm(nn.Module):
    def __init__(self, dim):
        super().__init__()
        self.ln = LayerNorm(dim)

    def forward(self, x, y):
        return self.ln(y + x)


class PositionWiseFFN(nn.Module):
    def __init__(self, dim, hidden):
        super().__init__()
        self.dense1 = nn.Linear(dim, hidden)
        self.dense2 = nn.Linear(hidden, dim)

    def forward(self, x):
        return self.dense2(torch.clamp(self.dense1(x), min=0))


class EncoderBlock(nn.Module):
    """Post-norm: y = LN(x + attention(x)); LN(y + ffn(y))."""

    def __init__(self, dim, hidden, heads):
        super().__init__()
        self.attention = MultiHeadAttention(dim, heads, bias=True)
        self.addnorm1 = AddNorm(dim)
        self.ffn = PositionWiseFFN(dim, hidden)
        self.addnorm2 = AddNorm(dim)

    def forward(self, x):
        y = self.addnorm1(x, self.attention(x))
        return self.addnorm2(y, self.ffn(y))


class D2LDraft(nn.Module):
    """The book's early draft: EncoderBlocks over patches; head on the mean token is ours, the draft has none."""

    def __init__(self, image, classes, patch, dim, hidden, heads, blocks, max_len):
        super().__init__()
        self.patch_embedding = PatchEmbedding(image[0], dim, patch)
        self.pos_embedding = nn.Parameter(torch.zeros(1, max_len, dim))
        self.blks = nn.Sequential(*(EncoderBlock(dim, hidden, heads) for _ in range(blocks)))
        self.head = nn.Linear(dim, classes)

    def forward(self, image):
        x = self.patch_embedding(image)
        x = self.blks(x + self.pos_embedding[:, : x.shape[1]])
        return self.head(x.mean(1))


class ViTMLP(nn.Module):
    def __init__(self, dim, hidden):
        super().__init__()
        self.dense1 = nn.Linear(dim, hidden)
        self.dense2 = nn.Linear(hidden, dim)

    def forward(self, x):
        return self.dense2(gelu(self.dense1(x)))


class ViTBlock(nn.Module):
    """Pre-norm: x += attention(LN x); x += mlp(LN x)."""

    def __init__(self, dim, hidden, heads):
        super().__init__()
        self.ln1 = LayerNorm(dim)
        self.attention = MultiHeadAttention(dim, heads, bias=False)
        self.ln2 = LayerNorm(dim)
        self.mlp = ViTMLP(dim, hidden)

    def forward(self, x):
        x = x + self.attention(self.ln1(x))
        return x + self.mlp(self.ln2(x))


class D2LViT(nn.Module):
    """The published book's ViT."""

    def __init__(self, image, classes, patch, dim, hidden, heads, blocks):
        super().__init__()
        count = (image[1] // patch) * (image[2] // patch)
        self.patch_embedding = PatchEmbedding(image[0], dim, patch)
        self.cls_token = nn.Parameter(torch.zeros(1, 1, dim))
        self.pos_embedding = nn.Parameter(torch.zeros(1, count + 1, dim))
        self.blks = nn.Sequential(*(ViTBlock(dim, hidden, heads) for _ in range(blocks)))
        self.head = nn.Sequential(LayerNorm(dim), nn.Linear(dim, classes))

    def forward(self, image):
        x = self.patch_embedding(image)
        x = torch.cat((self.cls_token.expand(len(x), -1, -1), x), 1)
        x = self.blks(x + self.pos_embedding)
        return self.head(x[:, 0])


# --- timm --------------------------------------------------------------------


class Projection(nn.Module):
    def __init__(self, channels, dim, patch):
        super().__init__()
        self.proj = patch_conv(channels, dim, patch)

    def forward(self, image):
        return tokens(self.proj, image)


class FusedAttention(nn.Module):
    def __init__(self, dim, heads):
        super().__init__()
        self.heads = heads
        self.qkv = nn.Linear(dim, 3 * dim)
        self.proj = nn.Linear(dim, dim)

    def forward(self, x):
        return self.proj(attend(*self.qkv(x).chunk(3, dim=-1), self.heads))


class Mlp(nn.Module):
    def __init__(self, dim, hidden):
        super().__init__()
        self.fc1 = nn.Linear(dim, hidden)
        self.fc2 = nn.Linear(hidden, dim)

    def forward(self, x):
        return self.fc2(gelu(self.fc1(x)))


class LayerScale(nn.Module):
    def __init__(self, dim):
        super().__init__()
        self.gamma = nn.Parameter(torch.ones(dim))

    def forward(self, x):
        return x * self.gamma


class TimmBlock(nn.Module):
    def __init__(self, dim, hidden, heads, layer_scale):
        super().__init__()
        self.norm1 = LayerNorm(dim, eps=1e-6)
        self.attn = FusedAttention(dim, heads)
        self.ls1 = LayerScale(dim) if layer_scale else nn.Identity()
        self.norm2 = LayerNorm(dim, eps=1e-6)
        self.mlp = Mlp(dim, hidden)
        self.ls2 = LayerScale(dim) if layer_scale else nn.Identity()

    def forward(self, x):
        x = x + self.ls1(self.attn(self.norm1(x)))
        return x + self.ls2(self.mlp(self.norm2(x)))


class TimmViT(nn.Module):
    """timm's VisionTransformer with global_pool='token'."""

    def __init__(self, image, classes, patch, dim, hidden, heads, blocks, layer_scale):
        super().__init__()
        count = (image[1] // patch) * (image[2] // patch)
        self.cls_token = nn.Parameter(torch.zeros(1, 1, dim))
        self.pos_embed = nn.Parameter(torch.zeros(1, count + 1, dim))
        self.patch_embed = Projection(image[0], dim, patch)
        self.blocks = nn.Sequential(*(TimmBlock(dim, hidden, heads, layer_scale) for _ in range(blocks)))
        self.norm = LayerNorm(dim, eps=1e-6)
        self.head = nn.Linear(dim, classes)

    def forward(self, image):
        x = self.patch_embed(image)
        x = torch.cat((self.cls_token.expand(len(x), -1, -1), x), 1)
        x = self.norm(self.blocks(x + self.pos_embed))
        return self.head(x[:, 0])


class MixerBlock(nn.Module):
    def __init__(self, count, dim, token_hidden, channel_hidden):
        super().__init__()
        self.norm1 = LayerNorm(dim, eps=1e-6)
        self.mlp_tokens = Mlp(count, token_hidden)
        self.norm2 = LayerNorm(dim, eps=1e-6)
        self.mlp_channels = Mlp(dim, channel_hidden)

    def forward(self, x):
        x = x + self.mlp_tokens(self.norm1(x).transpose(1, 2)).transpose(1, 2)
        return x + self.mlp_channels(self.norm2(x))


class TimmMixer(nn.Module):
    """timm's MlpMixer: no positions, no attention."""

    def __init__(self, image, classes, patch, dim, token_hidden, channel_hidden, blocks):
        super().__init__()
        count = (image[1] // patch) * (image[2] // patch)
        self.stem = Projection(image[0], dim, patch)
        self.blocks = nn.Sequential(*(MixerBlock(count, dim, token_hidden, channel_hidden) for _ in range(blocks)))
        self.norm = LayerNorm(dim, eps=1e-6)
        self.head = nn.Linear(dim, classes)

    def forward(self, image):
        return self.head(self.norm(self.blocks(self.stem(image))).mean(1))


# --- a small ViT of our own --------------------------------------------------


class TinyBlock(nn.Module):
    def __init__(self, dim, hidden, heads):
        super().__init__()
        self.norm1 = LayerNorm(dim)
        self.attn = FusedAttention(dim, heads)
        self.norm2 = LayerNorm(dim)
        self.fc1 = nn.Linear(dim, hidden)
        self.fc2 = nn.Linear(hidden, dim)

    def forward(self, x):
        x = x + self.attn(self.norm1(x))
        return x + self.fc2(gelu(self.fc1(self.norm2(x))))


class TinyViT(nn.Module):
    """timm's blocks with shorter names and the default epsilon; the norm follows the choice of the token."""

    def __init__(self, image, classes, patch, dim, hidden, heads, blocks):
        super().__init__()
        count = (image[1] // patch) * (image[2] // patch)
        self.patch = patch_conv(image[0], dim, patch)
        self.cls_token = nn.Parameter(torch.zeros(1, 1, dim))
        self.pos_embed = nn.Parameter(torch.zeros(1, count + 1, dim))
        self.blocks = nn.Sequential(*(TinyBlock(dim, hidden, heads) for _ in range(blocks)))
        self.norm = LayerNorm(dim)
        self.head = nn.Linear(dim, classes)

    def forward(self, image):
        x = tokens(self.patch, image)
        x = torch.cat((self.cls_token.expand(len(x), -1, -1), x), 1)
        x = self.blocks(x + self.pos_embed)
        return self.head(self.norm(x[:, 0]))


# --- the remaining features --------------------------------------------------


def sincos(count, dim):
    """Vaswani et al.: P[t, 2j] = sin(t/10000^(2j/D)), P[t, 2j+1] = cos(t/10000^(2j/D))."""
    t = torch.arange(count, dtype=torch.float64)[:, None]
    angle = t / 10000 ** (torch.arange(0, dim, 2, dtype=torch.float64) / dim)
    return torch.stack((torch.sin(angle), torch.cos(angle)), -1).reshape(count, dim)


class NormTC(nn.Module):
    """What the other models leave out: fixed positions, a norm over tokens and
    channels together, causal attention, SiLU, tanh GELU, a flattened head."""

    def __init__(self, image, classes, patch, dim, hidden, heads):
        super().__init__()
        count = (image[1] // patch) * (image[2] // patch)
        self.patch_embed = patch_conv(image[0], dim, patch)
        self.ln1 = LayerNorm(count, dim)
        self.attn = MultiHeadAttention(dim, heads, bias=False, causal=True)
        self.ln2 = LayerNorm(dim)
        self.fc1 = nn.Linear(dim, hidden)
        self.fc2 = nn.Linear(hidden, dim)
        self.head = nn.Linear(count * dim, classes)
        self.register_buffer("positions", sincos(count, dim), persistent=False)

    def forward(self, image):
        x = tokens(self.patch_embed, image)
        x = x + self.positions.to(x.dtype)
        x = x + self.attn(self.ln1(x))
        x = x + self.fc2(silu(self.fc1(self.ln2(x))))
        return self.head(gelu_tanh(x).flatten(1))


def selfcheck():
    """The formulas above against PyTorch's own functions, in float64."""
    g = torch.Generator().manual_seed(0)
    x, q, k, v = (torch.randn(2, 5, 12, generator=g, dtype=torch.float64) * 3 for _ in range(4))
    ln, ln2 = LayerNorm(12, eps=1e-3).double(), LayerNorm(5, 12).double()
    heads = lambda t: t.reshape(2, 5, 3, 4).transpose(1, 2)
    sdpa = lambda causal: F.scaled_dot_product_attention(heads(q), heads(k), heads(v), is_causal=causal)
    for ours, theirs in [
        (gelu(x), F.gelu(x)),
        (gelu_tanh(x), F.gelu(x, approximate="tanh")),
        (silu(x), F.silu(x)),
        (ln(x), F.layer_norm(x, (12,), eps=1e-3)),
        (ln2(x), F.layer_norm(x, (5, 12))),
        (heads(attend(q, k, v, 3)), sdpa(False)),
        (heads(attend(q, k, v, 3, causal=True)), sdpa(True)),
    ]:
        assert torch.allclose(ours, theirs, rtol=1e-13, atol=1e-13), (ours - theirs).abs().max()
