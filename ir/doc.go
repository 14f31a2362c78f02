package ir

import (
	"fmt"
	"strings"
)

const opsHeader = `# Ops

<!-- Generated from the op table (ir/table.go). Rewrite it with:
     VITGEN_UPDATE=1 go test ./ir -run TestOpsDoc -->

What a graph can compute: every op with its operands, results, attributes,
shape rule and formula. ` + "`ir/interp`" + ` evaluates each of them in float64.

Shapes are written as in a graph's text: ` + "`[n|T,D]`" + ` is a batch of n samples,
each of shape T by D, and ` + "`[D]`" + ` has no batch. R… and S… stand for any number of
dimensions, ` + "`[]`" + ` for a single number. Only the batch may be smaller at run time
than the graph says (the last one of an epoch). Where no element type is given,
it is f32 or bf16, and that of the first operand.

A pointwise op with two operands broadcasts the second: it has the shape of the
first, or no batch and a suffix of the first's shape.

An op without a gradient says why; for all others autodiff has a rule, which is
checked against finite differences.
`

// classDocs says what the ops of a class have in common.
var classDocs = [...]string{
	ClassSource:    "Values that no kernel computes.",
	ClassView:      "The same elements seen otherwise. A view costs nothing where its memory can be shared.",
	ClassPointwise: "One element of the result from one of each operand: fused into the kernel before or after.",
	ClassGemm:      "Matrix products. The weight is w[N,K], as in PyTorch's Linear.",
	ClassAttention: "Attention over whole sequences; the weights are never stored.",
	ClassRow:       "Ops that read whole rows: normalization and the loss.",
	ClassMove:      "Ops that move elements to other positions.",
	ClassReduce:    "Sums, always in the same order, so that a run can be repeated bit for bit.",
	ClassOptimizer: "The parameter updates, over all elements of a parameter.",
}

// OpsMarkdown renders the op table as docs/ops.md.
func OpsMarkdown() string {
	var b strings.Builder
	b.WriteString(opsHeader)
	for c, text := range classDocs {
		fmt.Fprintf(&b, "\n## %s\n\n%s\n", title(Class(c).String()), text)
		for _, op := range Ops() {
			if info := op.Info(); info.Class == Class(c) {
				opMarkdown(&b, info)
			}
		}
	}
	return b.String()
}

func opMarkdown(b *strings.Builder, info *Info) {
	attrs := make([]string, len(info.Attrs))
	for i, a := range info.Attrs {
		attrs[i] = fmt.Sprintf("`%s` (%s)", a.Key, a.Kind)
	}
	gradient := "yes"
	if info.NoGrad != "" {
		gradient = "none: " + info.NoGrad
	}
	fmt.Fprintf(b, "\n### %s\n\n", info.Name)
	fmt.Fprintf(b, "    %s\n\n", strings.Join(strings.Fields(
		strings.Join(info.Results, ", ")+" = "+info.Name+" "+strings.Join(info.Args, ", ")), " "))
	fmt.Fprintf(b, "%s\n\n", info.Doc)
	fmt.Fprintf(b, "- Shapes: %s\n", info.Rule)
	if len(attrs) > 0 {
		fmt.Fprintf(b, "- Attributes: %s\n", strings.Join(attrs, ", "))
	}
	fmt.Fprintf(b, "- Effect: %s\n", info.Effect)
	fmt.Fprintf(b, "- Gradient: %s\n", gradient)
}

func title(s string) string { return strings.ToUpper(s[:1]) + s[1:] }
