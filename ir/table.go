package ir

import "slices"

// The ops. Their rows stand in table, in the same order.
const (
	OpInput Op = iota
	OpParam
	OpState
	OpScalar
	OpConst
	OpSinCos

	OpReshape
	OpSliceLast
	OpConcatLast
	OpSliceFirst
	OpConcatFirst

	OpAdd
	OpMul
	OpScale
	OpGelu
	OpGeluSlope
	OpRelu
	OpReluGrad
	OpSilu
	OpSiluGrad
	OpDropout
	OpDropPath
	OpRepeatTokens
	OpPadTokens
	OpBroadcastBatch

	OpLinear
	OpLinearDX
	OpLinearDW
	OpHeadLinear
	OpHeadLinearT
	OpHeadLinearDW

	OpAttention
	OpAttentionGrad
	OpLatentAttention
	OpLatentAttentionGrad

	OpLayerNorm
	OpLayerNormGrad
	OpCrossEntropy
	OpCrossEntropyGrad
	OpMixedCrossEntropy
	OpMixedCrossEntropyGrad

	OpPatchify
	OpPrependToken
	OpSliceTokens
	OpTranspose

	OpSumTokens
	OpSumLeading
	OpSumBatch
	OpSumSquares
	OpClipScale

	OpSGD
	OpSGDMomentum
	OpAdamW
	OpEMA
)

const (
	gradOfGrad   = "only appears in the backward pass; second derivatives are not needed"
	onlyInUpdate = "only appears in the update"
)

var (
	siteAttrs = []AttrSpec{{"p", AttrFloat}, {"site", AttrInt}, {"rows", AttrInt}, {"first_row", AttrInt}}
	attnAttrs = []AttrSpec{{"heads", AttrInt}, {"scale", AttrFloat}, {"causal", AttrBool},
		{"p", AttrFloat}, {"site", AttrInt}, {"q_first", AttrInt}, {"q_total", AttrInt}}
	headAttrs   = []AttrSpec{{"heads", AttrInt}}
	latentAttrs = append(slices.Clone(attnAttrs), AttrSpec{"sums", AttrBool})
)

// table is the op table: one row per op, the one home of what an op is.
// Evaluation (ir/interp), gradients (passes) and emission (codegen/plan) are
// tables keyed by these ops; a completeness test visits every row.
//
// In the shapes below n is the batch, R… and S… any number of dimensions.
var table = [...]Info{
	// Sources.
	OpInput: {Name: "input", Results: []string{"x"}, Attrs: []AttrSpec{{"name", AttrString}, {"type", AttrType}},
		Class: ClassSource, Shape: shapeDeclared, NoGrad: "inputs are not trained",
		Rule: "→ x of the given type",
		Doc:  "What the host provides: image f32[n|C,H,W], label i32[n|], and where two labels are mixed label2 i32[n|] and mix f32[n|]; label -1 marks a row without a sample."},
	OpParam: {Name: "param", Results: []string{"w"}, Attrs: []AttrSpec{{"name", AttrString}, {"type", AttrType}},
		Class: ClassSource, Shape: shapeDeclared, NoGrad: "its gradient is an output of the graph",
		Rule: "→ w of the given type",
		Doc:  "A trainable tensor under its state_dict name."},
	OpState: {Name: "state", Results: []string{"s"}, Attrs: []AttrSpec{{"name", AttrString}, {"slot", AttrString}, {"type", AttrType}},
		Class: ClassSource, Shape: shapeDeclared, NoGrad: "optimizer state is not trained",
		Rule: "→ s of the given type",
		Doc:  "What is kept per parameter from step to step: slot grad, state0, state1 or average of parameter name."},
	OpScalar: {Name: "scalar", Results: []string{"s"}, Attrs: []AttrSpec{{"name", AttrString}},
		Class: ClassSource, Shape: shapeScalar, NoGrad: "set by the host",
		Rule: "→ s f32[]",
		Doc:  "A number the host sets for each step: lr, inv_n (1 / samples of the effective batch), bias_corr1 = 1/(1-β₁ᵏ), bias_corr2 = 1/(1-β₂ᵏ), ema_weight (1 − decay of the update)."},
	OpConst: {Name: "const", Results: []string{"c"}, Attrs: []AttrSpec{{"value", AttrFloat}, {"type", AttrType}},
		Class: ClassSource, Shape: shapeDeclared, NoGrad: "constant",
		Rule: "→ c of the given type",
		Doc:  "A tensor whose elements are all value."},
	OpSinCos: {Name: "sincos", Results: []string{"t"}, Attrs: []AttrSpec{{"type", AttrType}},
		Class: ClassSource, Shape: shapeSinCos, NoGrad: "constant",
		Rule: "→ t f32[T,D]",
		Doc:  "The fixed position table of Vaswani et al. 2017: t[i,2j] = sin(i / 10000^(2j/D)), t[i,2j+1] = cos(i / 10000^(2j/D))."},

	// Views.
	OpReshape: {Name: "reshape", Args: []string{"x"}, Results: []string{"y"}, Attrs: []AttrSpec{{"shape", AttrInts}},
		Class: ClassView, Shape: shapeReshape,
		Rule: "x [R…] → y [shape], with as many elements; a batch stays as it is",
		Doc:  "The same elements in row-major order under another shape per sample; the batch stays."},
	OpSliceLast: {Name: "slice_last", Args: []string{"x"}, Results: []string{"y"}, Attrs: []AttrSpec{{"from", AttrInt}, {"to", AttrInt}},
		Class: ClassView, Shape: shapeSliceLast,
		Rule: "x [R…,W] → y [R…,to−from]",
		Doc:  "y[…,j] = x[…,from+j] for from ≤ from+j < to. Its gradient is a concat_last with zeros, or with the other slices' gradients."},
	OpConcatLast: {Name: "concat_last", Args: []string{"xs…"}, Results: []string{"y"},
		Class: ClassView, Shape: shapeConcatLast,
		Rule: "xs [R…,Wᵢ] → y [R…,ΣWᵢ]",
		Doc:  "The operands side by side in the last dimension."},
	OpSliceFirst: {Name: "slice_first", Args: []string{"x"}, Results: []string{"y"}, Attrs: []AttrSpec{{"from", AttrInt}, {"to", AttrInt}},
		Class: ClassView, Shape: shapeSliceFirst,
		Rule: "x [M,R…] → y [to−from,R…], without batch",
		Doc:  "Rows from ≤ i < to of the first dimension of a tensor without batch: a part of a weight."},
	OpConcatFirst: {Name: "concat_first", Args: []string{"xs…"}, Results: []string{"y"},
		Class: ClassView, Shape: shapeConcatFirst,
		Rule: "xs [Mᵢ,R…] → y [ΣMᵢ,R…], without batch",
		Doc:  "Tensors without batch stacked in their first dimension: several weights as one. A view where the parameters are neighbours in the arena."},

	// Pointwise. The result has the shape of the first operand; a later
	// operand has that shape too, or is broadcast: without batch and with a
	// shape that is a suffix of the first's (a scalar is the shortest suffix).
	OpAdd: {Name: "add", Args: []string{"x", "y"}, Results: []string{"z"}, Class: ClassPointwise, Shape: shapeBroadcast,
		Rule: "x [n|R…], y the same or a suffix of R… → z [n|R…]",
		Doc:  "z = x + y."},
	OpMul: {Name: "mul", Args: []string{"x", "y"}, Results: []string{"z"}, Class: ClassPointwise, Shape: shapeBroadcast,
		Rule: "x [n|R…], y the same or a suffix of R… → z [n|R…]",
		Doc:  "z = x · y."},
	OpScale: {Name: "scale", Args: []string{"x"}, Results: []string{"y"}, Attrs: []AttrSpec{{"by", AttrFloat}},
		Class: ClassPointwise, Shape: shapeSame,
		Rule: "x [R…] → y [R…]",
		Doc:  "y = by · x."},
	OpGelu: {Name: "gelu", Args: []string{"x"}, Results: []string{"y"}, Attrs: []AttrSpec{{"tanh", AttrBool}},
		Class: ClassPointwise, Shape: shapeSame,
		Rule: "x [R…] → y [R…]",
		Doc:  "y = x·Φ(x) = ½x(1 + erf(x/√2)); with tanh: ½x(1 + tanh(√(2/π)(x + 0.044715x³))) (Hendrycks & Gimpel 2016)."},
	OpGeluSlope: {Name: "gelu_slope", Args: []string{"x"}, Results: []string{"s"}, Attrs: []AttrSpec{{"tanh", AttrBool}},
		Class: ClassPointwise, Shape: shapeSame, NoGrad: gradOfGrad,
		Rule: "x [R…] → s [R…]",
		Doc:  "s = Φ(x) + x·φ(x), or the derivative of the tanh form: dx = dy · s. The forward pass keeps it instead of x."},
	OpRelu: {Name: "relu", Args: []string{"x"}, Results: []string{"y"}, Class: ClassPointwise, Shape: shapeSame,
		Rule: "x [R…] → y [R…]",
		Doc:  "y = max(x, 0)."},
	OpReluGrad: {Name: "relu_grad", Args: []string{"dy", "x"}, Results: []string{"dx"}, Class: ClassPointwise, Shape: shapeBroadcast, NoGrad: gradOfGrad,
		Rule: "dy [R…], x [R…] → dx [R…]",
		Doc:  "dx = dy where x > 0, else 0."},
	OpSilu: {Name: "silu", Args: []string{"x"}, Results: []string{"y"}, Class: ClassPointwise, Shape: shapeSame,
		Rule: "x [R…] → y [R…]",
		Doc:  "y = x·σ(x), σ(x) = 1/(1+e⁻ˣ)."},
	OpSiluGrad: {Name: "silu_grad", Args: []string{"dy", "x"}, Results: []string{"dx"}, Class: ClassPointwise, Shape: shapeBroadcast, NoGrad: gradOfGrad,
		Rule: "dy [R…], x [R…] → dx [R…]",
		Doc:  "dx = dy · σ(x)(1 + x(1 − σ(x)))."},
	OpDropout: {Name: "dropout", Args: []string{"x"}, Results: []string{"y"}, Attrs: siteAttrs, Effect: Random,
		Class: ClassPointwise, Shape: shapeDropout,
		Rule: "x [n|R…,D] → y [n|R…,D]; at most 2³⁵ elements in n samples of `rows` rows",
		Doc: "y = x · keep / (1 − p̂), keep drawn per element by Philox4x32-10 at counter (site, step, index), p̂ = round(65536p)/65536. " +
			"The index of row r of sample s is taken as if the sample had `rows` rows and r were row first_row + r: a pruned graph draws what the whole one would. Its own gradient: dx = dropout(dy) at the same site."},
	OpDropPath: {Name: "drop_path", Args: []string{"x"}, Results: []string{"y"}, Attrs: []AttrSpec{{"p", AttrFloat}, {"site", AttrInt}}, Effect: Random,
		Class: ClassPointwise, Shape: shapeDropPath,
		Rule: "x [n|R…] → y [n|R…]",
		Doc:  "Stochastic depth (Huang et al. 2016): y = x · keep / (1 − p̂), one draw per sample. Its own gradient, as dropout."},
	OpRepeatTokens: {Name: "repeat_tokens", Args: []string{"x"}, Results: []string{"y"}, Attrs: []AttrSpec{{"tokens", AttrInt}},
		Class: ClassPointwise, Shape: shapeRepeatTokens,
		Rule: "x [n|D] → y [n|tokens,D]",
		Doc:  "y[n,t,d] = x[n,d] for every token t."},
	OpPadTokens: {Name: "pad_tokens", Args: []string{"x"}, Results: []string{"y"}, Attrs: []AttrSpec{{"before", AttrInt}, {"after", AttrInt}},
		Class: ClassPointwise, Shape: shapePadTokens,
		Rule: "x [n|T,D] → y [n|before+T+after,D]",
		Doc:  "Zero tokens before and after those of x: the gradient of slice_tokens."},
	OpBroadcastBatch: {Name: "broadcast_batch", Args: []string{"s"}, Results: []string{"y"}, Attrs: []AttrSpec{{"batch", AttrInt}},
		Class: ClassPointwise, Shape: shapeBroadcastBatch,
		Rule: "s [] → y [batch|]",
		Doc:  "One scalar for every sample: y[n] = s."},

	// Matrix products. The weight is w[N,K] as in PyTorch's Linear.
	OpLinear: {Name: "linear", Args: []string{"x", "w"}, Results: []string{"y"}, Class: ClassGemm, Shape: shapeLinear,
		Rule: "x [n|R…,K], w [N,K] → y [n|R…,N]",
		Doc:  "y[R…,N] = Σ_k x[R…,k]·w[N,k]."},
	OpLinearDX: {Name: "linear_dx", Args: []string{"dy", "w"}, Results: []string{"dx"}, Class: ClassGemm, Shape: shapeLinearDX, NoGrad: gradOfGrad,
		Rule: "dy [n|R…,N], w [N,K] → dx [n|R…,K]",
		Doc:  "dx[R…,K] = Σ_n dy[R…,n]·w[n,K]."},
	OpLinearDW: {Name: "linear_dw", Args: []string{"dy", "x"}, Results: []string{"dw"}, Class: ClassGemm, Shape: shapeLinearDW, NoGrad: gradOfGrad,
		Rule: "dy [n|R…,N], x [n|R…,K] → dw f32[N,K]",
		Doc:  "dw[N,K] = Σ over all rows r of dy[r,N]·x[r,K]."},
	OpHeadLinear: {Name: "head_linear", Args: []string{"x", "w"}, Results: []string{"y"}, Attrs: headAttrs, Class: ClassGemm, Shape: shapeHeadLinear,
		Rule: "x [n|R…,heads·K], w [heads·N,K] → y [n|R…,heads·N]",
		Doc:  "Each head's columns by a weight of their own: y_h = w_h·x_h, h's rows of w and columns of x and y; a grouped linear layer."},
	OpHeadLinearT: {Name: "head_linear_t", Args: []string{"x", "w"}, Results: []string{"y"}, Attrs: headAttrs, Class: ClassGemm, Shape: shapeHeadLinearT,
		Rule: "x [n|R…,heads·N], w [heads·N,K] → y [n|R…,heads·K]",
		Doc:  "y_h = w_hᵀ·x_h: the transpose of head_linear, so each is the other's gradient."},
	OpHeadLinearDW: {Name: "head_linear_dw", Args: []string{"dy", "x"}, Results: []string{"dw"}, Attrs: headAttrs, Class: ClassGemm, Shape: shapeHeadLinearDW, NoGrad: gradOfGrad,
		Rule: "dy [n|R…,heads·N], x [n|R…,heads·K] → dw f32[heads·N,K]",
		Doc:  "dw_h = Σ over all rows of dy_h·x_hᵀ; that of head_linear_t with its two operands exchanged."},

	// Attention.
	OpAttention: {Name: "attention", Args: []string{"q", "k", "v"}, Results: []string{"o", "lse"}, Attrs: attnAttrs, Effect: Random,
		Class: ClassAttention, Shape: shapeAttention,
		Rule: "q [n|T,D], k [n|Tₖ,D], v [n|Tₖ,D] → o [n|T,D], lse f32[n|heads,T]; heads divides D",
		Doc: "Per head h of size d = D/heads: s = scale·q_h·k_hᵀ, p = softmax(s), o_h = dropout(p)·v_h; lse = log Σ_j exp(s_ij), natural. " +
			"Query row i is token q_first+i of q_total (less than all after row pruning). causal: key j is seen if j ≤ q_first+i. " +
			"The weight of (sample b, head h, i, j) draws at index ((b·heads+h)·q_total + q_first+i)·T_k + j."},
	OpAttentionGrad: {Name: "attention_grad", Args: []string{"do", "q", "k", "v", "o", "lse"}, Results: []string{"dq", "dk", "dv"}, Attrs: attnAttrs, Effect: Random,
		Class: ClassAttention, Shape: shapeAttentionGrad, NoGrad: gradOfGrad,
		Rule: "do [n|T,D], q [n|T,D], k [n|Tₖ,D], v [n|Tₖ,D], o [n|T,D], lse f32[n|heads,T] → dq [n|T,D], dk [n|Tₖ,D], dv [n|Tₖ,D]",
		Doc:  "p is recomputed from lse; with m the dropout multiplier: dv = (m∘p)ᵀ·do, dp = m∘(do·vᵀ), ds = p∘(dp − rowsum(do∘o)), dq = scale·ds·k, dk = scale·dsᵀ·q (Dao et al. 2022)."},
	OpLatentAttention: {Name: "latent_attention", Args: []string{"q", "x"}, Results: []string{"o", "lse"}, Attrs: latentAttrs, Effect: Random,
		Class: ClassAttention, Shape: shapeLatentAttention,
		Rule: "q [n|T,heads·D], x [n|Tₖ,D] → o [n|T,heads·D], or heads·D + heads with sums, lse f32[n|heads,T]",
		Doc: "Attention whose heads, each as wide as x, have x itself for keys and for values: s = scale·q_h·xᵀ, p = softmax(s), o_h = dropout(p)·x. " +
			"sums: behind all heads' columns o has Σ_j dropout(p)_j of each head, which is 1 where nothing drops. " +
			"The other attributes, lse and the dropout index are those of attention, which the absorb pass makes this of."},
	OpLatentAttentionGrad: {Name: "latent_attention_grad", Args: []string{"do", "q", "x", "o", "lse"}, Results: []string{"dq", "dx"}, Attrs: latentAttrs, Effect: Random,
		Class: ClassAttention, Shape: shapeLatentAttentionGrad, NoGrad: gradOfGrad,
		Rule: "do and o [n|T,heads·D] or wider, q [n|T,heads·D], x [n|Tₖ,D], lse f32[n|heads,T] → dq [n|T,heads·D], dx [n|Tₖ,D]",
		Doc:  "As attention_grad with k = v = x: dp = m∘(do_h·xᵀ + dsum_h), ds = p∘(dp − rowsum(do∘o)), dq_h = scale·ds·x, dx = Σ_h (m∘p)ᵀ·do_h + scale·dsᵀ·q_h; do∘o and dsum_h are with the sums."},

	// Rows.
	OpLayerNorm: {Name: "layernorm", Args: []string{"x", "gamma", "beta"}, Results: []string{"y", "mean", "rstd"}, Attrs: []AttrSpec{{"eps", AttrFloat}},
		Class: ClassRow, Shape: shapeLayerNorm,
		Rule: "x [n|R…,S…], gamma [S…], beta [S…] → y [n|R…,S…], mean f32[n|R…], rstd f32[n|R…]",
		Doc:  "Over the trailing dimensions that gamma has: y = (x − mean)·rstd·gamma + beta, rstd = 1/√(var + eps), var the biased variance (Ba et al. 2016)."},
	OpLayerNormGrad: {Name: "layernorm_grad", Args: []string{"dy", "x", "gamma", "mean", "rstd"}, Results: []string{"dx", "dgamma", "dbeta"},
		Class: ClassRow, Shape: shapeLayerNormGrad, NoGrad: gradOfGrad,
		Rule: "dy [n|R…,S…], x [n|R…,S…], gamma [S…], mean f32[n|R…], rstd f32[n|R…] → dx [n|R…,S…], dgamma [S…], dbeta [S…]",
		Doc:  "x̂ = (x−mean)·rstd, g = dy·gamma: dx = rstd·(g − mean(g) − x̂·mean(g·x̂)), dgamma = Σ dy·x̂, dbeta = Σ dy."},
	OpCrossEntropy: {Name: "cross_entropy", Args: []string{"logits", "label"}, Results: []string{"loss", "correct"}, Attrs: []AttrSpec{{"smoothing", AttrFloat}},
		Class: ClassRow, Shape: shapeCrossEntropy,
		Rule: "logits [n|C], label i32[n|] → loss f32[n|], correct f32[n|]",
		Doc:  "Per sample: loss = −Σ_c t_c·log softmax(logits)_c, t = (1−s)·onehot(label) + s/C; correct = 1 if the arg max (lowest index on a tie) is the label. Both 0 where label is -1; the loss is NaN where it is no class."},
	OpCrossEntropyGrad: {Name: "cross_entropy_grad", Args: []string{"logits", "label", "dloss"}, Results: []string{"dlogits"}, Attrs: []AttrSpec{{"smoothing", AttrFloat}},
		Class: ClassRow, Shape: shapeCrossEntropyGrad, NoGrad: gradOfGrad,
		Rule: "logits [n|C], label i32[n|], dloss f32[n|] → dlogits [n|C]",
		Doc:  "dlogits_c = dloss·(softmax(logits)_c − t_c); 0 where label is -1, NaN where it is no class."},
	OpMixedCrossEntropy: {Name: "mixed_cross_entropy", Args: []string{"logits", "label", "label2", "mix"}, Results: []string{"loss", "correct"}, Attrs: []AttrSpec{{"smoothing", AttrFloat}},
		Class: ClassRow, Shape: shapeMixedCrossEntropy,
		Rule: "logits [n|C], label i32[n|], label2 i32[n|], mix f32[n|] → loss f32[n|], correct f32[n|]",
		Doc: "Per sample: loss = mix·CE(label) + (1−mix)·CE(label2), CE the loss of cross_entropy; correct is that of label (Zhang et al. 2018, mixup; Yun et al. 2019, CutMix). " +
			"Both 0 where label is -1; label2 does not count where mix is 1; the loss is NaN where a label that counts is no class."},
	OpMixedCrossEntropyGrad: {Name: "mixed_cross_entropy_grad", Args: []string{"logits", "label", "label2", "mix", "dloss"}, Results: []string{"dlogits"}, Attrs: []AttrSpec{{"smoothing", AttrFloat}},
		Class: ClassRow, Shape: shapeMixedCrossEntropyGrad, NoGrad: gradOfGrad,
		Rule: "logits [n|C], label i32[n|], label2 i32[n|], mix f32[n|], dloss f32[n|] → dlogits [n|C]",
		Doc:  "dlogits_c = dloss·(softmax(logits)_c − t_c), t = mix·t(label) + (1−mix)·t(label2), t(·) the target of cross_entropy; 0 and NaN where mixed_cross_entropy has them."},

	// Moves.
	OpPatchify: {Name: "patchify", Args: []string{"image"}, Results: []string{"y"}, Attrs: []AttrSpec{{"patch", AttrInt}},
		Class: ClassMove, Shape: shapePatchify, NoGrad: "it reads the input image, which is not trained",
		Rule: "image [n|C,H,W] → y [n|(H/p)·(W/p),C·p·p]; p = patch divides H and W",
		Doc:  "y[n, i·W/p+j, (c·p+u)·p+v] = image[n, c, i·p+u, j·p+v]: a convolution with kernel = stride = p becomes a linear layer."},
	OpPrependToken: {Name: "prepend_token", Args: []string{"x", "token"}, Results: []string{"y"},
		Class: ClassMove, Shape: shapePrependToken,
		Rule: "x [n|T,D], token [D] → y [n|T+1,D]",
		Doc:  "y[n,0,:] = token, y[n,t+1,:] = x[n,t,:]."},
	OpSliceTokens: {Name: "slice_tokens", Args: []string{"x"}, Results: []string{"y"}, Attrs: []AttrSpec{{"from", AttrInt}, {"to", AttrInt}},
		Class: ClassMove, Shape: shapeSliceTokens,
		Rule: "x [n|T,D] → y [n|to−from,D]",
		Doc:  "Tokens from ≤ t < to of every sample."},
	OpTranspose: {Name: "transpose", Args: []string{"x"}, Results: []string{"y"},
		Class: ClassMove, Shape: shapeTranspose,
		Rule: "x [n|T,C] → y [n|C,T]",
		Doc:  "y[n,c,t] = x[n,t,c]."},

	// Reductions.
	OpSumTokens: {Name: "sum_tokens", Args: []string{"x"}, Results: []string{"y"},
		Class: ClassReduce, Shape: shapeSumTokens,
		Rule: "x [n|T,D] → y [n|D]",
		Doc:  "y[n,d] = Σ_t x[n,t,d]."},
	OpSumLeading: {Name: "sum_leading", Args: []string{"x"}, Results: []string{"y"}, Attrs: []AttrSpec{{"shape", AttrInts}},
		Class: ClassReduce, Shape: shapeSumLeading, NoGrad: gradOfGrad,
		Rule: "x [n|R…,shape] → y f32[shape]",
		Doc:  "Sums over the batch and every dimension before the suffix `shape`: the gradient of a broadcast."},
	OpSumBatch: {Name: "sum_batch", Args: []string{"x"}, Results: []string{"y"},
		Class: ClassReduce, Shape: shapeSumBatch,
		Rule: "x [n|] → y f32[]",
		Doc:  "y = Σ_n x[n]."},
	OpSumSquares: {Name: "sum_squares", Args: []string{"xs…"}, Results: []string{"y"},
		Class: ClassReduce, Shape: shapeScalarResult, NoGrad: onlyInUpdate,
		Rule: "xs of any shapes → y f32[]",
		Doc:  "y = Σ over all elements of all operands of x²."},
	OpClipScale: {Name: "clip_scale", Args: []string{"sumsq"}, Results: []string{"s"}, Attrs: []AttrSpec{{"norm", AttrFloat}},
		Class: ClassReduce, Shape: shapeClipScale, NoGrad: onlyInUpdate,
		Rule: "sumsq f32[] → s f32[]",
		Doc:  "s = norm/√sumsq if √sumsq > norm, else 1."},

	// Optimizers; p, g and the states have one shape.
	OpSGD: {Name: "sgd", Args: []string{"p", "g", "lr"}, Results: []string{"p'"}, Attrs: []AttrSpec{{"weight_decay", AttrFloat}},
		Class: ClassOptimizer, Shape: shapeSGD, NoGrad: onlyInUpdate,
		Rule: "p [R…], g [R…], lr [] → p' [R…]; all f32",
		Doc:  "p' = p − lr·(g + weight_decay·p)."},
	OpSGDMomentum: {Name: "sgd_momentum", Args: []string{"p", "g", "m", "lr"}, Results: []string{"p'", "m'"},
		Attrs: []AttrSpec{{"weight_decay", AttrFloat}, {"momentum", AttrFloat}, {"nesterov", AttrBool}},
		Class: ClassOptimizer, Shape: shapeSGDMomentum, NoGrad: onlyInUpdate,
		Rule: "p [R…], g [R…], m [R…], lr [] → p' [R…], m' [R…]; all f32",
		Doc:  "d = g + weight_decay·p; m' = momentum·m + d; p' = p − lr·m', with nesterov p − lr·(d + momentum·m'), as torch.optim.SGD."},
	OpAdamW: {Name: "adamw", Args: []string{"p", "g", "m", "v", "lr", "bias_corr1", "bias_corr2"}, Results: []string{"p'", "m'", "v'"},
		Attrs: []AttrSpec{{"weight_decay", AttrFloat}, {"beta1", AttrFloat}, {"beta2", AttrFloat}, {"eps", AttrFloat}},
		Class: ClassOptimizer, Shape: shapeAdamW, NoGrad: onlyInUpdate,
		Rule: "p [R…], g [R…], m [R…], v [R…], lr [], bias_corr1 [], bias_corr2 [] → p' [R…], m' [R…], v' [R…]; all f32",
		Doc:  "m' = β₁m + (1−β₁)g; v' = β₂v + (1−β₂)g²; p' = p·(1 − lr·weight_decay) − lr·(m'·bias_corr1)/(√(v'·bias_corr2) + eps) (Loshchilov & Hutter 2019)."},
	OpEMA: {Name: "ema", Args: []string{"e", "p", "weight"}, Results: []string{"e'"},
		Class: ClassOptimizer, Shape: shapeEMA, NoGrad: onlyInUpdate,
		Rule: "e [R…], p [R…], weight [] → e' [R…]; all f32",
		Doc:  "e' = e + weight·(p − e), the moving average of parameter p as it is after the update: with weight = 1−d it is d·e + (1−d)·p, as torch.optim.swa_utils.get_ema_multi_avg_fn(d)."},
}
