package ir

import (
	"fmt"
	"strconv"
	"strings"
)

// String prints the graph in its text form, which Parse reads back:
//
//	graph vit.grad "vit.yaml" train {
//	  %0 = input {name="image", type=f32[128|1,96,96]} : f32[128|1,96,96]
//	  %2 = linear %0, %1 : f32[128|36,512] @12:5 "patch_embedding.conv"
//	  return logits=%2
//	}
//
// A fused graph prints its groups as `group FAMILY {` … `}` around their
// nodes, the anchor marked with *; a group that shares the launch of the one
// before it starts with the word with. A value that memory holds in another
// type than its own says so behind its type, as bf16. A planned graph says
// arena=BYTES before the brace and ends each stored result's type with its
// place, !offset+size.
func (g *Graph) String() string {
	var b strings.Builder
	fmt.Fprintf(&b, "graph %s %q %s", quoteName(g.Name), g.File, g.Stage)
	if g.Stage == StagePlanned {
		fmt.Fprintf(&b, " arena=%d", g.Arena)
	}
	b.WriteString(" {\n")
	if g.Groups != nil {
		for _, gr := range g.Groups {
			word := "group"
			if gr.Joined {
				word = "with"
			}
			fmt.Fprintf(&b, "  %s %s {\n", word, gr.Family)
			for _, n := range gr.Nodes {
				mark := "  "
				if n == gr.Anchor {
					mark = "* "
				}
				fmt.Fprintf(&b, "  %s%s\n", mark, g.nodeText(n))
			}
			b.WriteString("  }\n")
		}
	} else {
		for _, n := range g.Nodes {
			fmt.Fprintf(&b, "  %s\n", g.nodeText(n))
		}
	}
	b.WriteString("  return")
	for i, o := range g.Outputs {
		if i > 0 {
			b.WriteByte(',')
		}
		fmt.Fprintf(&b, " %s=%v", quoteName(o.Name), o.Value)
	}
	b.WriteString("\n}\n")
	return b.String()
}

// quoteName leaves plain dotted names bare.
func quoteName(s string) string {
	for i, r := range s {
		if !(r == '_' || r == '.' || r >= 'a' && r <= 'z' || r >= 'A' && r <= 'Z' || i > 0 && r >= '0' && r <= '9') {
			return strconv.Quote(s)
		}
	}
	if s == "" {
		return `""`
	}
	return s
}

func (g *Graph) nodeText(n *Node) string {
	var b strings.Builder
	for i, o := range n.Outs {
		if i > 0 {
			b.WriteString(", ")
		}
		b.WriteString(o.String())
	}
	fmt.Fprintf(&b, " = %s", n.Op)
	for i, a := range n.Args {
		if i > 0 {
			b.WriteByte(',')
		}
		fmt.Fprintf(&b, " %v", a)
	}
	if len(n.Attrs) > 0 {
		b.WriteString(" {")
		for i, a := range n.Attrs {
			if i > 0 {
				b.WriteString(", ")
			}
			fmt.Fprintf(&b, "%s=%s", a.Key, attrText(a.Val))
		}
		b.WriteByte('}')
	}
	b.WriteString(" : ")
	for i, o := range n.Outs {
		if i > 0 {
			b.WriteString(", ")
		}
		b.WriteString(o.Type.String())
		if o.Narrow != Invalid {
			fmt.Fprintf(&b, " as %s", o.Narrow)
		}
		if p, ok := g.Places[o]; ok {
			fmt.Fprintf(&b, "!%d+%d", p.Offset, p.Size)
		}
	}
	if n.Pos != (Pos{}) {
		fmt.Fprintf(&b, " @%d:%d", n.Pos.Line, n.Pos.Col)
	}
	if n.Layer != "" {
		fmt.Fprintf(&b, " %q", n.Layer)
	}
	return b.String()
}

// attrText prints an attribute so that its kind can be told from the text:
// a float always has a point or an exponent.
func attrText(v any) string {
	switch v := v.(type) {
	case string:
		return strconv.Quote(v)
	case float64:
		s := strconv.FormatFloat(v, 'g', -1, 64)
		if !strings.ContainsAny(s, ".eIN") {
			s += ".0"
		}
		return s
	case []int:
		parts := make([]string, len(v))
		for i, x := range v {
			parts[i] = strconv.Itoa(x)
		}
		return "(" + strings.Join(parts, ",") + ")"
	}
	return fmt.Sprint(v)
}
