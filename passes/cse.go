package passes

import (
	"fmt"
	"strings"

	"github.com/vitgen/vitgen/ir"
)

// CSE computes equal values once: a node with the op, attributes and operands
// of an earlier one is replaced by it.
//
//	%1 = relu %0 : f32[4|8]
//	%2 = relu %0 : f32[4|8]
//	%3 = add %1, %2 : f32[4|8]
//
// becomes
//
//	%1 = relu %0 : f32[4|8]
//	%2 = add %1, %1 : f32[4|8]
//
// Random ops need no exception: their draws are a function of the site, which
// is an attribute. The first node's position and layer remain.
func CSE(g *ir.Graph) error {
	seen := map[string][]*ir.Value{}
	rebuild(g, func(h *ir.Graph, n *ir.Node, args []*ir.Value) []*ir.Value {
		key := nodeKey(n, args)
		outs, ok := seen[key]
		if !ok {
			outs = copyNode(h, n, args)
			seen[key] = outs
		}
		return outs
	})
	return nil
}

// nodeKey is the text of a node without its results.
func nodeKey(n *ir.Node, args []*ir.Value) string {
	var b strings.Builder
	b.WriteString(n.Op.String())
	for _, a := range args {
		fmt.Fprintf(&b, " %d", a.ID)
	}
	for _, a := range n.Attrs {
		fmt.Fprintf(&b, " %s=%v", a.Key, a.Val)
	}
	return b.String()
}
