package ir

import (
	"fmt"
	"slices"
	"strings"
)

// Attr is one compile-time argument of a node.
// Val is an int, float64, bool, string, []int or Type.
type Attr struct {
	Key string
	Val any
}

// Attrs is a list of attributes, sorted by key. It is never changed in place:
// nodes and clones share it.
type Attrs []Attr

// A builds attributes from key, value pairs.
func A(kv ...any) Attrs {
	var as Attrs
	for i := 0; i+1 < len(kv); i += 2 {
		as = append(as, Attr{kv[i].(string), kv[i+1]})
	}
	slices.SortFunc(as, func(x, y Attr) int { return strings.Compare(x.Key, y.Key) })
	return as
}

// Get returns the value of a key, or nil.
func (as Attrs) Get(key string) any {
	for _, a := range as {
		if a.Key == key {
			return a.Val
		}
	}
	return nil
}

// With returns a copy in which key has the value val.
func (as Attrs) With(key string, val any) Attrs {
	kv := []any{key, val}
	for _, a := range as {
		if a.Key != key {
			kv = append(kv, a.Key, a.Val)
		}
	}
	return A(kv...)
}

func get[T any](n *Node, key string) T {
	v, ok := n.Attrs.Get(key).(T)
	if !ok {
		panic(fmt.Sprintf("BUG: %s has no attribute %s of type %T", n.Op, key, v))
	}
	return v
}

// Int, Float, Bool, Str, Ints and TypeAttr read an attribute that the op's
// table row declares.
func (n *Node) Int(key string) int       { return get[int](n, key) }
func (n *Node) Float(key string) float64 { return get[float64](n, key) }
func (n *Node) Bool(key string) bool     { return get[bool](n, key) }
func (n *Node) Str(key string) string    { return get[string](n, key) }
func (n *Node) Ints(key string) []int    { return get[[]int](n, key) }
func (n *Node) TypeAttr(key string) Type { return get[Type](n, key) }
