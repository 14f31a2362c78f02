package kernels

// AttentionShape is what the size of an attention launch depends on.
type AttentionShape struct {
	Math                   string // fp32, tf32, bf16
	Heads, HeadDim, Tq, Tk int
	Dropout                bool
	Narrow                 bool // bf16 in memory
}

const (
	attentionFew       = 80 << 10 // kAttentionFew
	attentionMost      = 99 << 10 // kAttentionMost
	attentionSumBlocks = 256      // kAttentionSumBlocks
)

func up(n, to int) int   { return down(n, to) * to }
func down(n, by int) int { return (n + by - 1) / by }

// columns is the head's size in shared memory, and rowBytes that of its rows.
func (s AttentionShape) columns() int {
	if s.HeadDim > 128 {
		return up(s.HeadDim, 32)
	}
	return up(s.HeadDim, 16)
}

func (s AttentionShape) elem() int {
	if s.Math == "bf16" {
		return 2
	}
	return 4
}

func (s AttentionShape) rowBytes() int {
	pad := 8
	if s.Math == "fp32" {
		pad = 4
	}
	return (s.columns() + pad) * s.elem()
}

// maskBytes is vg_weight_mask::bytes of rows by keys.
func (s AttentionShape) maskBytes(rows, keys int) int {
	elements := keys
	if keys >= s.Tk {
		elements, rows = rows*s.Tk, 1
	}
	if !s.Dropout {
		return 0
	}
	return rows * 16 * (down(elements+127, 128) + 2)
}

// groupsOf is how many groups of warps share a block.
func groupsOf(warps, bytes int) int {
	wish := 1
	switch warps {
	case 1:
		wish = 4
	case 2:
		wish = 2
	}
	if wish*bytes <= attentionFew {
		return wish
	}
	if wish >= 2 && 2*bytes <= attentionFew {
		return 2
	}
	return 1
}

// attentionTile is vg_attention_tile.
type attentionTile struct{ warps, keyGroups, slots int }

func (s AttentionShape) tileBytes(t attentionTile) int {
	keys := 64 * t.keyGroups
	if s.Tk <= 512 {
		keys = s.Tk
	}
	rows := 16 * min(t.keyGroups*t.slots, down(s.Tk, 16))
	return (16*t.warps+2*rows)*s.rowBytes() + t.warps*s.maskBytes(16, keys)
}

func (s AttentionShape) tile() attentionTile {
	strips, all := down(s.Tq, 16), down(s.Tk, 16)
	for floor := 4; floor >= 1; floor -= 3 {
		for g := min(4, all); g >= 1; g /= 2 {
			for most := 8; most >= floor; most /= 2 {
				tiles := down(all, g)
				t := attentionTile{down(strips, down(strips, most)), g, tiles}
				if s.tileBytes(t) <= attentionFew {
					return t
				}
				for t.slots = 3; t.slots >= 2; t.slots-- {
					if t.slots < tiles && s.tileBytes(t) <= attentionMost {
						return t
					}
				}
			}
		}
	}
	return attentionTile{1, 1, 1}
}

// AttentionLaunch sizes vg_attention, and its block: vg_attention_config.
func AttentionLaunch(s AttentionShape, batch int) (l Launch, threads int) {
	t := s.tile()
	bytes := s.tileBytes(t)
	groups := groupsOf(t.warps, bytes)
	queryBlocks := down(s.Tq, 16*t.warps)
	l.Blocks = down(batch*s.Heads*queryBlocks, groups)
	l.Shared = bytes * groups
	return l, 32 * t.warps * groups
}

// gradTile is vg_attention_grad_tile.
type gradTile struct{ strips, queries, slots int }

func (s AttentionShape) gradBytes(t gradTile) int {
	stats := t.queries
	if s.Tq <= 1024 {
		stats = up(s.Tq, t.queries)
	}
	return 2*(16*t.strips+t.slots*t.queries)*s.rowBytes() + 16*t.strips*(t.queries+8)*s.elem() +
		8*stats + s.maskBytes(t.queries, 16*t.strips)
}

// split is how many warps share the columns of a strip of keys.
func (s AttentionShape) split() int {
	if s.columns() > 128 {
		return 2
	}
	return 1
}

func (s AttentionShape) gradTile() gradTile {
	all, mostStrips, mostQueries := down(s.Tk, 16), 8/s.split(), min(up(s.Tq, 16), 32)
	if s.columns() <= 64 {
		mostStrips = 12
		if all <= 13 {
			mostStrips = 13
		}
		if s.Tq <= 48 {
			mostQueries = min(up(s.Tq, 16), 48)
		}
	}
	for n := down(all, mostStrips); n <= all; n++ {
		for q := mostQueries; q >= 16; {
			slots := 1
			if s.Tq > q {
				slots = 2
			}
			for ; slots >= 1; slots-- {
				if t := (gradTile{down(all, n), q, slots}); s.gradBytes(t) <= attentionMost {
					return t
				}
			}
			if q > 16 {
				q = 16
			} else {
				q = 0
			}
		}
	}
	return gradTile{1, 16, 1}
}

// AttentionGradLaunch sizes vg_attention_grad, and its block:
// vg_attention_grad_config.
func AttentionGradLaunch(s AttentionShape, batch int) (l Launch, threads int) {
	t := s.gradTile()
	bytes, warps := s.gradBytes(t), t.strips*s.split()
	groups := groupsOf(warps, bytes)
	l.Blocks = down(batch*s.Heads, groups)
	l.Shared = bytes * groups
	if keyTiles := down(s.Tk, 16*t.strips); keyTiles > 1 && s.Narrow {
		l.Blocks = min(l.Blocks, attentionSumBlocks)
		l.Workspace = int64(l.Blocks) * int64(groups) * int64(s.Tq) * int64(s.columns()) * floatBytes
	}
	return l, 32 * warps * groups
}
