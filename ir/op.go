package ir

import (
	"fmt"
	"slices"
)

// Op names an operation; its meaning is its row in the op table.
type Op uint8

// Class says how an op takes part in fusion.
type Class uint8

const (
	ClassSource    Class = iota // no computation: inputs, parameters, constants
	ClassView                   // the same elements seen otherwise
	ClassPointwise              // one result element from one element of each operand
	ClassGemm                   // matrix products
	ClassAttention
	ClassRow    // reads whole rows, gives rows: normalizations, losses
	ClassMove   // moves elements between positions
	ClassReduce // fewer elements than it reads
	ClassOptimizer
)

var classNames = [...]string{"source", "view", "pointwise", "gemm", "attention", "row", "move", "reduce", "optimizer"}

func (c Class) String() string { return classNames[c] }

// Effect says what an op depends on besides its arguments.
type Effect uint8

const (
	Pure   Effect = iota
	Random        // reads the counter-based random stream at its own site: the same site and step give the same draw
)

func (e Effect) String() string { return [...]string{"pure", "random"}[e] }

// AttrKind is the type of an attribute.
type AttrKind uint8

const (
	AttrInt AttrKind = iota
	AttrFloat
	AttrBool
	AttrString
	AttrInts
	AttrType
)

func (k AttrKind) String() string {
	return [...]string{"int", "float", "bool", "string", "ints", "type"}[k]
}

// Matches reports whether a Go value has the attribute kind.
func (k AttrKind) Matches(v any) bool {
	switch v.(type) {
	case int:
		return k == AttrInt
	case float64:
		return k == AttrFloat
	case bool:
		return k == AttrBool
	case string:
		return k == AttrString
	case []int:
		return k == AttrInts
	case Type:
		return k == AttrType
	}
	return false
}

// AttrSpec declares one attribute of an op.
type AttrSpec struct {
	Key  string
	Kind AttrKind
}

// Info is an op's row in the op table.
type Info struct {
	Name    string
	Args    []string // names of the operands; a last "xs…" takes one or more
	Results []string // names of the results
	Attrs   []AttrSpec
	Effect  Effect
	Class   Class
	Shape   func(n *Node) ([]Type, error) // result types from operands and attributes: the verifier's rule
	Rule    string                        // the shape rule in words, for people: operands → results
	NoGrad  string                        // why there is no gradient; empty: autodiff has a rule
	Doc     string                        // formula; the first sentence says what it is
}

// Variadic reports whether the last operand takes one or more values.
func (i *Info) Variadic() bool {
	return len(i.Args) > 0 && len(i.Args[len(i.Args)-1]) > 3 && i.Args[len(i.Args)-1][len(i.Args[len(i.Args)-1])-3:] == "…"
}

// Info returns the op's table row.
func (op Op) Info() *Info {
	if int(op) >= len(table) {
		panic(fmt.Sprintf("BUG: op %d is not in the table", op))
	}
	return &table[op]
}

func (op Op) String() string { return op.Info().Name }

// TrainOnly reports whether the op appears in the backward pass or the update
// only, never in a forward graph.
func (op Op) TrainOnly() bool {
	why := op.Info().NoGrad
	return why == gradOfGrad || why == onlyInUpdate
}

// Ops lists every op, in table order.
func Ops() []Op {
	ops := make([]Op, len(table))
	for i := range ops {
		ops[i] = Op(i)
	}
	return ops
}

// OpByName finds an op by its text name.
func OpByName(name string) (Op, bool) {
	for i := range table {
		if table[i].Name == name {
			return Op(i), true
		}
	}
	return 0, false
}

// InferTypes applies an op's rule to a node's operands and attributes:
// count and kinds first, then the shape function.
func InferTypes(n *Node) ([]Type, error) {
	info := n.Op.Info()
	want := len(info.Args)
	if info.Variadic() {
		if len(n.Args) < want {
			return nil, fmt.Errorf("has %d operands, wants at least %d", len(n.Args), want)
		}
	} else if len(n.Args) != want {
		return nil, fmt.Errorf("has %d operands, wants %d", len(n.Args), want)
	}
	if slices.Contains(n.Args, nil) {
		return nil, fmt.Errorf("has a nil operand")
	}
	if len(n.Attrs) != len(info.Attrs) {
		return nil, fmt.Errorf("has %d attributes, wants %d", len(n.Attrs), len(info.Attrs))
	}
	for _, s := range info.Attrs {
		if v := n.Attrs.Get(s.Key); !s.Kind.Matches(v) {
			return nil, fmt.Errorf("attribute %s is %v, wants %s", s.Key, v, s.Kind)
		}
	}
	if err := checkMagnitude(n.Attrs); err != nil {
		return nil, err
	}
	types, err := info.Shape(n)
	if err != nil {
		return nil, err
	}
	for _, t := range types {
		if !fits(MaxElems, t.Shape...) {
			return nil, fmt.Errorf("result %v has more than 2^40 elements", t)
		}
	}
	return types, nil
}

// MaxElems bounds the elements of a value, and every integer attribute: far
// beyond any machine, and small enough that no shape rule's sum overflows.
const MaxElems = 1 << 40

func checkMagnitude(as Attrs) error {
	for _, a := range as {
		var xs []int
		switch v := a.Val.(type) {
		case int:
			xs = []int{v}
		case []int:
			xs = v
		case Type:
			xs = v.Shape
		}
		for _, x := range xs {
			if x > MaxElems || x < -MaxElems {
				return fmt.Errorf("attribute %s is out of range: %d", a.Key, x)
			}
		}
	}
	return nil
}
