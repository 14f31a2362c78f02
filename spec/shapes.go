package spec

import (
	"fmt"
	"math"
)

// checker goes through the expanded model: shapes, sizes, names.
type checker struct {
	*reporter
	batch int // for the size of activations
}

// orKey is the span of a key's value, or of the word of what has the key.
func (c *checker) orKey(k *keys, key string, word Pos, text string) span {
	if at, ok := k.at[key]; ok {
		return at
	}
	return span{word, len(text)}
}

// at is the span of a key's value, or of the layer's word.
func (c *checker) at(b *Base, key string) span {
	if at, ok := b.keys.at[key]; ok {
		return at
	}
	return b.word
}

// layers checks a list of layers one after the other and gives the last shape.
func (c *checker) layers(list []Layer, in Shape) Shape {
	for _, l := range list {
		b := l.Common()
		b.In = in
		var out Shape
		if in.Kind != Unknown {
			out = l.shape(c, in)
		} else if r, ok := l.(*Residual); ok {
			c.layers(r.Body, in)
		}
		if out.Kind != Unknown && tooBig(append([]int{c.batch}, out.Dims...)...) {
			c.errorf(b.word, "the output, %d samples of %s, has more than 2^40 elements", c.batch, out)
			out = Shape{}
		}
		b.Out = out
		in = out
	}
	return in
}

// tooBig reports whether a tensor of these dimensions has more than maxElems
// elements. One that a mistake left unknown, 0, is not.
func tooBig(dims ...int) bool {
	n := 1
	for _, d := range dims {
		if d == 0 {
			return false
		}
		if d > maxElems/n {
			return true
		}
		n *= d
	}
	return false
}

// want reports a layer that stands where it cannot.
func (c *checker) want(b *Base, kind string, in Shape, kinds ...ShapeKind) bool {
	text := ""
	for i, k := range kinds {
		if k == in.Kind {
			return true
		}
		if i > 0 {
			text += " or "
		}
		text += shapeWords[k]
	}
	hint := ""
	switch {
	case in.Kind == Image:
		hint = "patch_embed makes tokens of an image, flatten a vector"
	case in.Kind == Tokens && kinds[0] == Vector:
		hint = "select, mean_pool and flatten make a vector of tokens"
	}
	c.add(b.word, hint, fmt.Sprintf("%s needs %s, but its input is %s", kind, text, in))
	return false
}

var shapeWords = map[ShapeKind]string{Image: "an image", Tokens: "tokens", Vector: "a vector"}

func (l *PatchEmbed) shape(c *checker, in Shape) Shape {
	if !c.want(&l.Base, l.Kind(), in, Image) {
		return Shape{}
	}
	h, w := in.Dims[1], in.Dims[2]
	if h%l.Patch != 0 || w%l.Patch != 0 {
		c.errorf(c.at(&l.Base, "patch"), "the image of %d×%d cannot be cut into patches of %d×%d", h, w, l.Patch, l.Patch)
		return Shape{}
	}
	return Shape{Tokens, []int{h / l.Patch * (w / l.Patch), l.Out}}
}

func (l *ClsToken) shape(c *checker, in Shape) Shape {
	if !c.want(&l.Base, l.Kind(), in, Tokens) {
		return Shape{}
	}
	return Shape{Tokens, []int{in.Dims[0] + 1, in.Dims[1]}}
}

func (l *PosEmbed) shape(c *checker, in Shape) Shape {
	if !c.want(&l.Base, l.Kind(), in, Tokens) {
		return Shape{}
	}
	tokens, channels := in.Dims[0], in.Dims[1]
	switch {
	case l.Type == "sincos":
		if channels%2 != 0 {
			c.errorf(c.at(&l.Base, "type"), "sincos needs an even number of channels, not %d", channels)
		}
	case l.MaxLen == 0:
		l.MaxLen = tokens
	case l.MaxLen < tokens:
		c.errorf(c.at(&l.Base, "max_len"), "max_len is %d, but there are %d tokens", l.MaxLen, tokens)
	}
	return in
}

func (l *LayerNorm) shape(c *checker, in Shape) Shape {
	if l.Over == "tokens_channels" {
		if !c.want(&l.Base, "layernorm over tokens_channels", in, Tokens) {
			return Shape{}
		}
	} else if !c.want(&l.Base, l.Kind(), in, Tokens, Vector) {
		return Shape{}
	}
	return in
}

func (l *Attention) shape(c *checker, in Shape) Shape {
	if !c.want(&l.Base, l.Kind(), in, Tokens) {
		return Shape{}
	}
	tokens, channels := in.Dims[0], in.Dims[1]
	if channels%l.Heads != 0 {
		c.errorf(c.at(&l.Base, "heads"), "%d heads do not divide %d channels", l.Heads, channels)
	}
	if tooBig(c.batch, l.Heads, tokens, tokens) {
		c.errorf(l.word, "the attention weights, %d samples of %d heads × %d × %d tokens, are more than 2^40", c.batch, l.Heads, tokens, tokens)
	}
	return in
}

func (l *Linear) shape(c *checker, in Shape) Shape {
	if !c.want(&l.Base, l.Kind(), in, Tokens, Vector) {
		return Shape{}
	}
	dims := append([]int(nil), in.Dims...)
	dims[len(dims)-1] = l.Out
	return Shape{in.Kind, dims}
}

func (l *LayerScale) shape(c *checker, in Shape) Shape {
	if !c.want(&l.Base, l.Kind(), in, Tokens, Vector) {
		return Shape{}
	}
	return in
}

func (l *Residual) shape(c *checker, in Shape) Shape {
	out := c.layers(l.Body, in)
	if out.Kind != Unknown && !out.Equal(in) {
		c.errorf(l.word, "the layers of a residual must keep the shape: %s became %s", in, out)
	}
	return in
}

func (l *Select) shape(c *checker, in Shape) Shape {
	if !c.want(&l.Base, l.Kind(), in, Tokens) {
		return Shape{}
	}
	tokens := in.Dims[0]
	if l.Token < -tokens || l.Token >= tokens {
		c.errorf(c.at(&l.Base, "token"), "there is no token %d: there are %d, counted from 0", l.Token, tokens)
	} else if l.Token < 0 {
		l.Token += tokens
	}
	return Shape{Vector, []int{in.Dims[1]}}
}

func (l *MeanPool) shape(c *checker, in Shape) Shape {
	if !c.want(&l.Base, l.Kind(), in, Tokens) {
		return Shape{}
	}
	if l.Skip >= in.Dims[0] {
		c.errorf(c.at(&l.Base, "skip"), "skip leaves no token: there are %d", in.Dims[0])
	}
	return Shape{Vector, []int{in.Dims[1]}}
}

func (l *Transpose) shape(c *checker, in Shape) Shape {
	if !c.want(&l.Base, l.Kind(), in, Tokens) {
		return Shape{}
	}
	return Shape{Tokens, []int{in.Dims[1], in.Dims[0]}}
}

func (l *Flatten) shape(c *checker, in Shape) Shape {
	if !c.want(&l.Base, l.Kind(), in, Image, Tokens) {
		return Shape{}
	}
	if tooBig(in.Dims...) {
		c.errorf(l.word, "%s has more than 2^40 elements", in)
		return Shape{}
	}
	return Shape{Vector, []int{in.Elems()}}
}

// output sees to it that the model ends in one logit per class.
func (c *checker) output(s *Spec, out Shape) {
	want := Shape{Vector, []int{s.Input.Classes}}
	if out.Kind == Unknown || out.Equal(want) {
		return
	}
	last := s.Model[len(s.Model)-1].Common()
	hint := fmt.Sprintf("end with linear: {out: %d}", s.Input.Classes)
	if out.Kind != Vector {
		hint = "select, mean_pool or flatten make a vector; then " + hint
	}
	c.add(last.word, hint, fmt.Sprintf("the model must end in %s, one logit per class; it ends in %s", want, out))
}

// params sees to it that names are unique and sizes sane.
func (c *checker) params(s *Spec) {
	first := map[string]*Base{}
	clash := map[[2]Pos]bool{} // once for all copies of a repeat
	total := 0
	WalkLayers(s.Model, func(l Layer) {
		b := l.Common()
		if b.In.Kind == Unknown {
			return
		}
		for _, p := range l.params() {
			if tooBig(p.Shape...) {
				c.errorf(b.word, "the parameter %s has more than 2^40 elements", p.Name)
				continue
			}
			total = min(total+p.Elems(), math.MaxInt/2)
			other := first[p.Name]
			if other == nil {
				first[p.Name] = b
				continue
			}
			pair := [2]Pos{other.Pos, b.Pos}
			if !clash[pair] {
				clash[pair] = true
				c.addNote(c.at(b, "name"), "give one of the layers another name", fmt.Sprintf("two parameters are named %q", p.Name),
					c.note(c.at(other, "name"), "the other one is here"))
			}
		}
	})
	if total > maxElems {
		c.errorf(s.Model[0].Common().word, "the model has more than 2^40 parameters")
	}
}
