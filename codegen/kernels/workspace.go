package kernels

// The workspace formulas. Each mirrors one in the C++ headers, which says what
// lies where; a test holds the two together for every instruction set.

const (
	// MaxRowColumns is the widest row of layer norm and cross-entropy (kMaxRow).
	MaxRowColumns = 1 << 18
	// MaxAttentionTokens bounds the key length of attention (kMaxTokens).
	MaxAttentionTokens = 16384
	// MaxHeadDim bounds the size of an attention head (kMaxHeadDim).
	MaxHeadDim = 512

	floatBytes     = 4
	gemmDepth      = 528     // kKC
	gemmStride     = 544     // kLDA
	gemmSharedRows = 512     // kSharedRows
	gemmTurnRows   = 129     // kTurnRows
	gemmMaxColumns = 60000   // kPrivateColumns
	gemmMaxTileRow = 14      // the largest kMR
	gemmSlab       = 1056    // kSlab
	gemmSlabRows   = 256     // kSlabRows
	reduceChunks   = 64      // kMaxChunks
	sumChunk       = 1 << 14 // kSumChunk
)

// PackedWeightBytes bounds what the weight of a linear layer from k channels to n
// takes when packed, on any instruction set: panels of at most 64 columns.
func PackedWeightBytes(n, k int) int64 { return floatBytes * roundUp(int64(n), 64) * int64(k) }

// GemmWorkspaceBytes bounds the workspace of a matrix product C[m,n] over depth
// k, on any instruction set and for any smaller m: all of B packed, and, when the
// rows of A are few enough to be shared between workers, all of A packed in blocks
// of depth 528.
func GemmWorkspaceBytes(m, n, k int) int64 {
	shared := int64(m)
	if n <= gemmMaxColumns {
		shared = min(shared, gemmSharedRows)
	}
	blocks := ceilDiv(int64(k), gemmDepth)
	return PackedWeightBytes(n, k) + floatBytes*blocks*gemmStride*(shared+gemmMaxTileRow-1)
}

// WeightGradWorkspaceBytes bounds the workspace of vg_gemm_tn alone, C[m,n] over
// depth k or less. It is that of any product, or for a long k what a slab of B and
// all of C take, if that is less; both of the transpose where that is computed.
func WeightGradWorkspaceBytes(m, n, k int) int64 {
	if m >= gemmTurnRows && m <= gemmSharedRows && n >= 2*m {
		m, n = n, m
	}
	whole := GemmWorkspaceBytes(m, n, k)
	if m < gemmSlabRows {
		return whole
	}
	width, rows := roundUp(int64(n), 64), int64(m)+gemmMaxTileRow-1
	sums := 2*int64(m) + 16 // a vector for each row panel
	return min(whole, floatBytes*(gemmSlab*width+rows*(width+16)+sums))
}

// ColumnSumWorkspaceBytes is the workspace of vg_column_sum over at most rows
// rows: a partial sum for each of up to 64 chunks.
func ColumnSumWorkspaceBytes(rows, cols int) int64 {
	return floatBytes * min(int64(rows), reduceChunks) * roundUp(int64(cols), 16)
}

// LayerNormGradWorkspaceBytes is the workspace of vg_layernorm_grad over at most
// rows rows: partial sums for gamma and for beta.
func LayerNormGradWorkspaceBytes(rows, cols int) int64 {
	return 2 * ColumnSumWorkspaceBytes(rows, cols)
}

// SumWorkspaceBytes is the workspace of vg_sumsq over n elements: a double for
// each chunk.
func SumWorkspaceBytes(n int64) int64 { return 8 * ceilDiv(n, sumChunk) }

func ceilDiv(a, b int64) int64 { return (a + b - 1) / b }
func roundUp(a, b int64) int64 { return ceilDiv(a, b) * b }
