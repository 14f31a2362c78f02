"""The peers' Vision Transformers in PyTorch, as their users write them.

Three families: d2l's, with the names of the book's state_dict, timm's, and the
small one of examples/vit_tiny.yaml. peer_torch.py check holds them to
golden/models.py, so that what is timed is the model that vitgen's numbers are
verified against.

Attention is either spelled out, as in the book, or PyTorch's own function. With
prune, the last block computes only the class token's row, as a user who knows
that nothing else is read could write it.
"""

import dataclasses
import math

import torch
import torch.nn.functional as F
from torch import nn


@dataclasses.dataclass(frozen=True)
class Config:
    family: str  # d2l, timm or tiny
    image: tuple  # C, H, W
    classes: int
    patch: int
    dim: int
    hidden: int
    heads: int
    blocks: int
    dropout: float = 0.0  # on attention weights; d2l: also after the embedding, and twice in the MLP
    drop_path: float = 0.0  # timm, tiny: of the last block, the others less in proportion

    @property
    def tokens(self):
        return (self.image[1] // self.patch) * (self.image[2] // self.patch)

    @property
    def drop_paths(self):
        return [self.drop_path * i / max(self.blocks - 1, 1) for i in range(self.blocks)]


def split_heads(x, heads):
    """[B, T, D] → [B, heads, T, D/heads]"""
    return x.unflatten(-1, (heads, -1)).transpose(1, 2)


def attend_plain(q, k, v, dropout, training):
    """d2l's DotProductAttention, without a mask."""
    B, H = q.shape[:2]
    q, k, v = (x.reshape(B * H, x.shape[2], x.shape[3]) for x in (q, k, v))
    scores = torch.bmm(q, k.transpose(1, 2)) / math.sqrt(q.shape[-1])
    y = torch.bmm(F.dropout(F.softmax(scores, dim=-1), dropout, training), v)
    return y.reshape(B, H, y.shape[1], y.shape[2])


def attend_sdpa(q, k, v, dropout, training):
    """The same through PyTorch's own attention function."""
    return F.scaled_dot_product_attention(q, k, v, dropout_p=dropout if training else 0.0)


ATTENTION = {"plain": attend_plain, "sdpa": attend_sdpa}


def merge_heads(x):
    return x.transpose(1, 2).flatten(2)


# --- Dive into Deep Learning -------------------------------------------------


class SeparateAttention(nn.Module):
    def __init__(self, c, attend):
        super().__init__()
        self.heads, self.dropout, self.attend = c.heads, c.dropout, attend
        self.W_q = nn.Linear(c.dim, c.dim, bias=False)
        self.W_k = nn.Linear(c.dim, c.dim, bias=False)
        self.W_v = nn.Linear(c.dim, c.dim, bias=False)
        self.W_o = nn.Linear(c.dim, c.dim, bias=False)

    def forward(self, x, keys):
        q, k, v = (split_heads(y, self.heads) for y in (self.W_q(x), self.W_k(keys), self.W_v(keys)))
        return self.W_o(merge_heads(self.attend(q, k, v, self.dropout, self.training)))


class D2LMLP(nn.Module):
    def __init__(self, c):
        super().__init__()
        self.dense1 = nn.Linear(c.dim, c.hidden)
        self.gelu = nn.GELU()
        self.dropout1 = nn.Dropout(c.dropout)
        self.dense2 = nn.Linear(c.hidden, c.dim)
        self.dropout2 = nn.Dropout(c.dropout)

    def forward(self, x):
        return self.dropout2(self.dense2(self.dropout1(self.gelu(self.dense1(x)))))


class D2LBlock(nn.Module):
    """x + attention(LN x), then x + mlp(LN x), for the first `rows` tokens (None: all)."""

    def __init__(self, c, attend):
        super().__init__()
        self.ln1 = nn.LayerNorm(c.dim)
        self.attention = SeparateAttention(c, attend)
        self.ln2 = nn.LayerNorm(c.dim)
        self.mlp = D2LMLP(c)

    def forward(self, x, rows=None):
        keys = self.ln1(x)
        x = x[:, :rows] + self.attention(keys[:, :rows], keys)
        return x + self.mlp(self.ln2(x))


class PatchEmbedding(nn.Module):
    def __init__(self, c):
        super().__init__()
        self.conv = nn.Conv2d(c.image[0], c.dim, kernel_size=c.patch, stride=c.patch)

    def forward(self, image):
        return self.conv(image).flatten(2).transpose(1, 2)


class D2LViT(nn.Module):
    def __init__(self, c, attention="plain", prune=False):
        super().__init__()
        self.prune = prune
        self.patch_embedding = PatchEmbedding(c)
        self.cls_token = nn.Parameter(torch.zeros(1, 1, c.dim))
        self.pos_embedding = nn.Parameter(torch.randn(1, c.tokens + 1, c.dim))
        self.dropout = nn.Dropout(c.dropout)
        self.blks = nn.Sequential(*(D2LBlock(c, ATTENTION[attention]) for _ in range(c.blocks)))
        self.head = nn.Sequential(nn.LayerNorm(c.dim), nn.Linear(c.dim, c.classes))

    def forward(self, image):
        x = self.patch_embedding(image)
        x = torch.cat((self.cls_token.expand(len(x), -1, -1), x), 1)
        x = self.dropout(x + self.pos_embedding)
        for block in self.blks[:-1]:
            x = block(x)
        return self.head(self.blks[-1](x, 1 if self.prune else None)[:, 0])


# --- timm --------------------------------------------------------------------


class FusedAttention(nn.Module):
    def __init__(self, c, attend):
        super().__init__()
        self.heads, self.dropout, self.attend = c.heads, c.dropout, attend
        self.qkv = nn.Linear(c.dim, 3 * c.dim)
        self.proj = nn.Linear(c.dim, c.dim)

    def forward(self, x, rows=None):
        q, k, v = (split_heads(y, self.heads) for y in self.qkv(x).chunk(3, -1))
        return self.proj(merge_heads(self.attend(q[:, :, :rows], k, v, self.dropout, self.training)))


class Mlp(nn.Module):
    def __init__(self, c):
        super().__init__()
        self.fc1 = nn.Linear(c.dim, c.hidden)
        self.act = nn.GELU()
        self.fc2 = nn.Linear(c.hidden, c.dim)

    def forward(self, x):
        return self.fc2(self.act(self.fc1(x)))


class DropPath(nn.Module):
    def __init__(self, p):
        super().__init__()
        self.p = p

    def forward(self, x):
        if self.p == 0.0 or not self.training:
            return x
        keep = 1 - self.p
        return x * x.new_empty(x.shape[0], 1, 1).bernoulli_(keep).div_(keep)


class TimmBlock(nn.Module):
    def __init__(self, c, attend, drop_path):
        super().__init__()
        self.norm1 = nn.LayerNorm(c.dim, eps=1e-6)
        self.attn = FusedAttention(c, attend)
        self.norm2 = nn.LayerNorm(c.dim, eps=1e-6)
        self.mlp = Mlp(c)
        self.drop_path = DropPath(drop_path)

    def forward(self, x, rows=None):
        x = x[:, :rows] + self.drop_path(self.attn(self.norm1(x), rows))
        return x + self.drop_path(self.mlp(self.norm2(x)))


class Projection(nn.Module):
    def __init__(self, c):
        super().__init__()
        self.proj = nn.Conv2d(c.image[0], c.dim, kernel_size=c.patch, stride=c.patch)

    def forward(self, image):
        return self.proj(image).flatten(2).transpose(1, 2)


class TimmViT(nn.Module):
    """timm's VisionTransformer with global_pool='token'."""

    def __init__(self, c, attention="sdpa", prune=False):
        super().__init__()
        self.prune = prune
        self.cls_token = nn.Parameter(1e-6 * torch.randn(1, 1, c.dim))
        self.pos_embed = nn.Parameter(0.02 * torch.randn(1, c.tokens + 1, c.dim))
        self.patch_embed = Projection(c)
        self.blocks = nn.Sequential(*(TimmBlock(c, ATTENTION[attention], rate) for rate in c.drop_paths))
        self.norm = nn.LayerNorm(c.dim, eps=1e-6)
        self.head = nn.Linear(c.dim, c.classes)

    def forward(self, image):
        x = self.patch_embed(image)
        x = torch.cat((self.cls_token.expand(len(x), -1, -1), x), 1) + self.pos_embed
        for block in self.blocks[:-1]:
            x = block(x)
        return self.head(self.norm(self.blocks[-1](x, 1 if self.prune else None))[:, 0])


# --- examples/vit_tiny.yaml ---------------------------------------------------


class TinyBlock(nn.Module):
    """timm's, with shorter names and PyTorch's epsilon."""

    def __init__(self, c, attend, drop_path):
        super().__init__()
        self.norm1 = nn.LayerNorm(c.dim)
        self.attn = FusedAttention(c, attend)
        self.norm2 = nn.LayerNorm(c.dim)
        self.fc1 = nn.Linear(c.dim, c.hidden)
        self.act = nn.GELU()
        self.fc2 = nn.Linear(c.hidden, c.dim)
        self.drop_path = DropPath(drop_path)

    def forward(self, x, rows=None):
        x = x[:, :rows] + self.drop_path(self.attn(self.norm1(x), rows))
        return x + self.drop_path(self.fc2(self.act(self.fc1(self.norm2(x)))))


class TinyViT(nn.Module):
    """The norm follows the choice of the token."""

    def __init__(self, c, attention="sdpa", prune=False):
        super().__init__()
        self.prune = prune
        self.patch = nn.Conv2d(c.image[0], c.dim, kernel_size=c.patch, stride=c.patch)
        self.cls_token = nn.Parameter(0.02 * torch.randn(1, 1, c.dim))
        self.pos_embed = nn.Parameter(0.2 * torch.randn(1, c.tokens + 1, c.dim))
        self.blocks = nn.Sequential(*(TinyBlock(c, ATTENTION[attention], rate) for rate in c.drop_paths))
        self.norm = nn.LayerNorm(c.dim)
        self.head = nn.Linear(c.dim, c.classes)

    def forward(self, image):
        x = self.patch(image).flatten(2).transpose(1, 2)
        x = torch.cat((self.cls_token.expand(len(x), -1, -1), x), 1) + self.pos_embed
        for block in self.blocks[:-1]:
            x = block(x)
        return self.head(self.norm(self.blocks[-1](x, 1 if self.prune else None)[:, 0]))


FAMILY = {"d2l": D2LViT, "timm": TimmViT, "tiny": TinyViT}


def build(c, attention="sdpa", prune=False):
    return FAMILY[c.family](c, attention, prune)


# --- against golden/models.py ------------------------------------------------


def reference(models, c):
    """golden/models.py's model of this configuration."""
    sizes = (c.image, c.classes, c.patch, c.dim, c.hidden, c.heads, c.blocks)
    if c.family == "timm":
        return models.TimmViT(*sizes, layer_scale=False)
    return {"d2l": models.D2LViT, "tiny": models.TinyViT}[c.family](*sizes)


def loss_and_gradients(model, image, label, smoothing=0.0):
    loss = F.cross_entropy(model(image), label, label_smoothing=smoothing)
    loss.backward()
    return {"loss": loss.detach(), **{name: p.grad for name, p in model.named_parameters()}}


def compare(models, c, batch=3, smoothing=0.0):
    """Holds every variant to golden/models.py, without dropout and in float64.

    Returns the reference, an image batch with labels, and what the reference
    makes of them; raises AssertionError where a variant differs.
    """
    # eval() only switches dropout off; there is nothing else it could change.
    golden = reference(models, c).double().eval()
    for p in golden.parameters():
        nn.init.normal_(p, std=0.05)  # no zero and no one left that could hide a mistake
    image, label = random_batch(c, batch, dtype=torch.float64)
    want = loss_and_gradients(golden, image, label, smoothing)
    for attention in ATTENTION:
        for prune in (False, True):
            model = build(c, attention, prune).double().eval()
            model.load_state_dict(golden.state_dict(), strict=True)
            got = loss_and_gradients(model, image, label, smoothing)
            for name, tensor in want.items():
                error = ((got[name] - tensor).norm() / tensor.norm()).item()
                assert error < 1e-10, (f"attention {attention}, prune {prune}: "
                                       f"{name} is {error:.1e} away from golden/models.py")  # fmt: skip
    return golden, image, label, want


def random_batch(c, batch, dtype=torch.float32, device="cpu"):
    """Never zeros, on which processors run faster."""
    image = torch.randn(batch, *c.image, dtype=dtype, device=device)
    return image, torch.randint(c.classes, (batch,), device=device)


def step_flops(c, batch, device="cpu"):
    """Multiplications and additions of the matrix products of a forward and backward pass."""
    from torch.utils.flop_counter import FlopCounterMode

    with torch.device(device):
        model = build(c, "plain").train()
    image, label = random_batch(c, batch, device=device)
    with FlopCounterMode(display=False) as counter:
        F.cross_entropy(model(image), label).backward()
    return counter.get_total_flops()
