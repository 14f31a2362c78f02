package spec

import (
	"bytes"
	"crypto/sha256"
	"encoding/hex"
	"fmt"
	"io"
	"strings"
)

// Canonical writes the spec as YAML in one fixed form: every key with its
// value, constants and expressions computed, repeats and blocks written out,
// parameters' layers with their full names. Two files with the same meaning
// have the same canonical form, and parsing it gives it again. Names of layers
// without parameters are left out: they mean nothing.
func (s *Spec) Canonical() []byte {
	var b bytes.Buffer
	doc := &document{Spec: *s}
	for _, f := range rootFields {
		switch {
		case f.key == "model":
			b.WriteString("model:\n")
			canonLayers(&b, s.Model, "  ")
		case !f.alias:
			fmt.Fprintf(&b, "%s: %s\n", f.key, f.typ.canon(f.dst(doc)))
		}
	}
	return b.Bytes()
}

// Hash is the hex SHA-256 of Canonical: the identity of the model and its
// training, whatever the file looks like.
func (s *Spec) Hash() string {
	sum := sha256.Sum256(s.Canonical())
	return hex.EncodeToString(sum[:])
}

func canonLayers(b io.Writer, layers []Layer, indent string) {
	for _, l := range layers {
		if r, ok := l.(*Residual); ok {
			fmt.Fprintf(b, "%s- residual:\n", indent)
			canonLayers(b, r.Body, indent+"    ")
			continue
		}
		v := layerUnion.find(l.Kind())
		fmt.Fprintf(b, "%s- %s\n", indent, canonVariant(v, l))
	}
}

// canonVariant writes {word: {…}}, or the word where there is nothing to say.
func canonVariant(v *variant, obj any) string {
	body := canonFields(v.fields, obj)
	if body == "" && v.bare() {
		return v.word
	}
	return "{" + v.word + ": {" + body + "}}"
}

func canonFields(fields []*field, obj any) string {
	var parts []string
	for _, f := range fields {
		if f.alias || !f.applies(obj) || f.unset != nil && f.unset(obj) {
			continue
		}
		if l, isLayer := obj.(Layer); isLayer && f.key == "name" && len(l.params()) == 0 {
			continue
		}
		parts = append(parts, f.key+": "+f.typ.canon(f.dst(obj)))
	}
	return strings.Join(parts, ", ")
}
