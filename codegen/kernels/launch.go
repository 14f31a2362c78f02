package kernels

// The launch formulas of the CUDA kernels: blocks, bytes of shared memory and
// of workspace, and counters, at full batch. Each mirrors a constant or a
// constexpr function of the headers, which says what it is for; a test holds
// the two together.

const (
	// BlockThreads is the block size of all kernels that may share a launch
	// (kBlockThreads).
	BlockThreads = 256

	maxBlocks     = 2048     // kMaxBlocks
	run           = 128      // kRun
	partialGroup  = 16       // kPartialGroup
	normChunks    = 256      // kNormChunks
	sumsqMost     = 1024     // in vg_sumsq_blocks
	gatherPixels  = 4096     // kGatherPixels
	shortRow      = 1024     // columns that a warp takes (vg_row_shape)
	keptRow       = 8192     // columns that registers hold (vg_row_shape)
	transposeEdge = 16       // kTransposeChannels
	voteBytes     = 16       // what a block's vote takes of shared memory
	sumGroups     = 256 / 16 // threads of a block in groups of 16
	rowSums       = 4        // kRowSums
	warps         = 256 / 32 // of a block
	doubleBytes   = 8        // sizeof(double)
	gatherTable   = 256 * 4  // kGatherShared
)

// Launch is the size of a launch.
type Launch struct {
	Blocks    int
	Shared    int   // bytes
	Workspace int64 // bytes
	Counters  int
}

func clampBlocks(n int64) int { return int(max(1, min(n, maxBlocks))) }

func runs(cols int) int64 { return ceilDiv(int64(cols), run) }

// runSteps is vg_run_steps.
func runSteps(cols int) int64 {
	if cols < run {
		return ceilDiv(int64(cols), 16)
	}
	return run / 16
}

// PointwiseLaunch sizes vg_pointwise over rows x cols.
func PointwiseLaunch(rows, cols int) Launch {
	return Launch{Blocks: clampBlocks(ceilDiv(int64(rows)*runs(cols), sumGroups))}
}

// PatchifyLaunch sizes vg_patchify.
func PatchifyLaunch(batch, C, H, W, P int) Launch {
	return PointwiseLaunch(batch*(H/P)*(W/P), C*P*P)
}

// TransposeLaunch sizes vg_transpose of [batch,T,C].
func TransposeLaunch(batch, T, C int) Launch {
	return Launch{
		Blocks: clampBlocks(int64(batch) * ceilDiv(int64(C), transposeEdge) * runs(T)),
		Shared: int(floatBytes * 16 * runSteps(T) * (transposeEdge + 1)),
	}
}

// FlatLaunch sizes a kernel over n elements in a row: the optimizers and
// vg_halve.
func FlatLaunch(n int64) Launch { return Launch{Blocks: clampBlocks(ceilDiv(n, 4*BlockThreads))} }

// GatherLaunch sizes vg_gather of images [C,H,W].
func GatherLaunch(batch, C, H, W int) Launch {
	return Launch{Blocks: clampBlocks(int64(batch) * int64(C) * ceilDiv(int64(H)*int64(W), gatherPixels)), Shared: gatherTable}
}

// partialCounters is vg_partials_counters.
func partialCounters(chunks int64) int { return int(1 + ceilDiv(chunks, partialGroup)) }

const sumShared = floatBytes*sumGroups*run + voteBytes // kSumShared

// ColumnSumLaunch sizes vg_column_sum over rows x cols.
func ColumnSumLaunch(rows, cols int) Launch {
	chunks := max(1, 256/runs(cols))
	return Launch{
		Blocks:    int(max(1, runs(cols)*min(chunks, ceilDiv(int64(rows), 16)))),
		Shared:    sumShared,
		Workspace: floatBytes * run * runs(cols) * chunks,
		Counters:  int(runs(cols)) * partialCounters(chunks),
	}
}

// TokenSumLaunch sizes vg_token_sum.
func TokenSumLaunch(batch, cols int) Launch {
	return Launch{Blocks: clampBlocks(int64(batch) * runs(cols)), Shared: sumShared}
}

// SumsqLaunch sizes vg_sumsq over n elements.
func SumsqLaunch(n int64) Launch {
	chunks := ceilDiv(n, sumChunk)
	return Launch{
		Blocks:    int(max(1, min(chunks, sumsqMost))),
		Shared:    doubleBytes*BlockThreads + voteBytes,
		Workspace: doubleBytes * chunks,
		Counters:  1,
	}
}

// rowShape is vg_row_shape: rows under way in a block, and slots of a row.
func rowShape(cols int) (rows, slots int64) {
	lanes := int64(BlockThreads)
	if cols <= shortRow {
		lanes = 32
	}
	return BlockThreads / lanes, runSteps(cols) * ceilDiv(runs(cols), lanes/16) * lanes
}

const rowShared = 2 * rowSums * warps * floatBytes // kRowShared

// RowLaunch sizes vg_layernorm and vg_cross_entropy over rows of cols.
func RowLaunch(rows, cols int) Launch {
	under, _ := rowShape(cols)
	return Launch{Blocks: clampBlocks(ceilDiv(int64(rows), under)), Shared: rowShared}
}

// LayerNormGradLaunch sizes vg_layernorm_grad over rows of cols.
func LayerNormGradLaunch(rows, cols int) Launch {
	under, slots := rowShape(cols)
	l := Launch{
		Blocks:   int(max(1, min(ceilDiv(int64(rows), under), normChunks))),
		Shared:   rowShared + voteBytes,
		Counters: partialCounters(normChunks),
	}
	if cols <= keptRow {
		l.Shared += int(2 * floatBytes * under * slots)
	}
	l.Workspace = 2 * floatBytes * slots * int64(l.Blocks)
	return l
}

// GemmLaunch sizes a product C[m,n] with the tile of vg_gemm_tile, whose
// operands have elements of elem bytes in shared memory.
func GemmLaunch(bm, bn, bk, stages, splits, elem, m, n int) Launch {
	blocks := int(ceilDiv(int64(m), int64(bm))*ceilDiv(int64(n), int64(bn))) * splits
	l := Launch{Blocks: blocks, Shared: max(stages*(bm+bn)*bk*elem, 4*bm*(bn+8))}
	if splits > 1 {
		l.Workspace = floatBytes * int64(bm) * int64(bn+1) * int64(blocks)
		l.Counters = blocks
	}
	return l
}
