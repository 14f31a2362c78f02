package spec

import (
	"fmt"
	"slices"
	"strings"

	"gopkg.in/yaml.v3"
)

// The language is a table. A variant is one word that may stand in some place
// (a layer, an optimizer, a data set, …); a field is one key of a map. The
// decoder, the canonical form, the JSON Schema and the key tables of
// docs/SPEC.md all walk the same rows.

// field is one key of a map.
type field struct {
	key  string
	typ  valueType
	req  bool
	doc  string
	def  string             // documents a default that depends on other things
	dst  func(obj any) any  // where the value goes: a pointer, or pointers
	when func(obj any) bool // nil, or whether the key means anything here…
	only string             // …and the words for when it does: "type: learned"
	// unset, if there, reports that the canonical form leaves the key out: the
	// value is "not given" and has no text that would say so, or the key is
	// younger than recorded hashes and has its default.
	unset func(obj any) bool
	// alias: the key only gives other keys their defaults, so the canonical
	// form leaves it out.
	alias bool
}

func (f *field) applies(obj any) bool { return f.when == nil || f.when(obj) }

// valueType is what may stand as the value of a key.
type valueType interface {
	// decode reads n into dst, reporting what is wrong. what names the key.
	decode(d *decoder, n *yaml.Node, what string, dst any) bool
	// canon writes what dst holds as one line of YAML.
	canon(dst any) string
	// schema is the JSON Schema.
	schema() object
	// describe is the type and range, for the documentation.
	describe() string
}

// object is a JSON object in the making.
type object = map[string]any

// variant is one word of a union. It is written as the bare word where no key
// is required, as {word: {key: value, …}}, or as {word: value}, which fills the
// key named short.
type variant struct {
	word   string
	doc    string
	make   func(d initDefaults) any // a new value with its defaults
	fields []*field
	short  string
	// finish checks what concerns several keys, and fills in what follows from
	// them. at is the word.
	finish func(d *decoder, obj any, at span) bool
}

func (v *variant) bare() bool {
	return !slices.ContainsFunc(v.fields, func(f *field) bool { return f.req })
}

func (v *variant) field(key string) *field { return findField(v.fields, key) }

func findField(fields []*field, key string) *field {
	for _, f := range fields {
		if f.key == key {
			return f
		}
	}
	return nil
}

func fieldKeys(fields []*field) []string {
	var names []string
	for _, f := range fields {
		names = append(names, f.key)
	}
	return names
}

// union is a choice between variants; name says of what, in messages.
type union struct {
	name string
	rows []*variant
}

func (u *union) find(word string) *variant {
	for _, v := range u.rows {
		if v.word == word {
			return v
		}
	}
	return nil
}

func (u *union) words() []string {
	var words []string
	for _, v := range u.rows {
		words = append(words, v.word)
	}
	return words
}

// decode reads one choice. On failure obj is nil and the mistake is reported.
func (u *union) decode(d *decoder, n *yaml.Node, what string) (v *variant, obj any, at span) {
	n = deref(n)
	at = d.extent(n)
	switch {
	case n.Kind == yaml.MappingNode && len(n.Content) == 2:
		at = d.extent(n.Content[0])
		if v = u.lookup(d, n.Content[0].Value, at); v == nil {
			return nil, nil, at
		}
		obj = v.make(d.init)
		if !d.variantBody(v, n.Content[1], obj, at) {
			return v, nil, at
		}
	case n.Kind == yaml.MappingNode && len(n.Content) > 2:
		hint := fmt.Sprintf("indent the keys below %q, or put them in {…}", n.Content[0].Value)
		if u.find(n.Content[2].Value) != nil {
			hint = "begin each with a dash of its own"
		}
		d.add(d.extent(n.Content[2]), hint, fmt.Sprintf("%s must be a single word or a map with one key", what))
		return nil, nil, at
	case n.Kind == yaml.ScalarNode && !isNull(n):
		val, ok := d.scalar(n, what, u.name)
		if !ok {
			return nil, nil, at
		}
		if val.kind != strVal {
			d.errorf(at, "%s must be %s, not %s", what, u.name, val)
			return nil, nil, at
		}
		if v = u.lookup(d, val.s, at); v == nil {
			return nil, nil, at
		}
		obj = v.make(d.init)
		if !d.requireAll(v.fields, nil, v.word, at) {
			return v, nil, at
		}
	default:
		d.add(at, "one of "+strings.Join(u.words(), ", "), fmt.Sprintf("%s must be %s, not %s", what, u.name, describe(n)))
		return nil, nil, at
	}
	if v.finish != nil && !v.finish(d, obj, at) {
		return v, nil, at
	}
	return v, obj, at
}

func (u *union) lookup(d *decoder, word string, at span) *variant {
	v := u.find(word)
	if v == nil {
		hint := didYouMean(word, u.words())
		if hint == "" {
			hint = "one of " + strings.Join(u.words(), ", ")
		}
		d.add(at, hint, fmt.Sprintf("unknown %s %q", strings.TrimPrefix(strings.TrimPrefix(u.name, "a "), "an "), word))
	}
	return v
}

// variantBody reads what stands after "word:".
func (d *decoder) variantBody(v *variant, n *yaml.Node, obj any, at span) bool {
	n = deref(n)
	switch {
	case n.Kind == yaml.MappingNode:
		return d.fields(v.fields, n, v.word, obj, at)
	case isNull(n):
		hint := fmt.Sprintf("keys: %s", strings.Join(fieldKeys(v.fields), ", "))
		if v.bare() {
			hint = fmt.Sprintf("write %q without the colon", v.word)
		}
		d.add(at, hint, fmt.Sprintf("nothing is given after %q", v.word+":"))
		return false
	case v.short == "":
		hint := fmt.Sprintf("write %q alone", v.word)
		for _, f := range v.fields {
			if f.req {
				hint = fmt.Sprintf("write {%s: {%s: …}}", v.word, f.key)
				break
			}
		}
		d.add(d.extent(n), hint, fmt.Sprintf("%s takes a map of keys, not %s", v.word, describe(n)))
		return false
	}
	f := v.field(v.short)
	mark(obj, f.key, d.extent(n))
	if !f.typ.decode(d, n, v.word, f.dst(obj)) {
		return false
	}
	return d.requireAll(v.fields, []string{f.key}, v.word, at)
}

// fields reads a map into obj. Every key is read even after mistakes, so that
// all are reported at once.
func (d *decoder) fields(fields []*field, n *yaml.Node, owner string, obj any, at span) bool {
	ok := true
	var given []string // and what unknown keys were probably meant to be
	values := map[string]*yaml.Node{}
	places := map[string]span{}
	for i := 0; i+1 < len(n.Content); i += 2 {
		k := n.Content[i]
		if k.Kind != yaml.ScalarNode || isMerge(k) { // reported by the guard
			return false
		}
		f := findField(fields, k.Value)
		if f == nil {
			given = append(given, d.unknownKey(k, fields, owner))
			ok = false
			continue
		}
		if values[k.Value] != nil { // reported by the guard
			continue
		}
		values[k.Value] = n.Content[i+1]
		places[k.Value] = d.extent(k)
		given = append(given, k.Value)
		if opt, isOption := f.typ.(optionType); isNull(n.Content[i+1]) && !(isOption && opt.bare && nothing(n.Content[i+1])) {
			d.errorf(d.extent(k), "nothing is given after %q", k.Value+":")
			delete(values, k.Value)
			ok = false
		}
	}
	// In the order of the table: what later keys depend on comes first in it.
	for _, f := range fields {
		v := values[f.key]
		if v == nil {
			continue
		}
		d.key = places[f.key]
		if isNull(v) {
			mark(obj, f.key, d.key)
		} else {
			mark(obj, f.key, d.extent(deref(v)))
		}
		if !f.typ.decode(d, v, f.key, f.dst(obj)) {
			ok = false
		}
	}
	if !d.requireAll(fields, given, owner, at) {
		ok = false
	}
	return ok && d.applicable(fields, values, owner, obj)
}

// unknownKey reports a key that is not in the table and gives the one that was
// probably meant, or "".
func (d *decoder) unknownKey(k *yaml.Node, fields []*field, owner string) (meant string) {
	known := fieldKeys(fields)
	hint := didYouMean(k.Value, known)
	switch {
	case hint != "":
	case len(known) == 0:
		hint = owner + " has no keys"
	default:
		hint = owner + " has " + strings.Join(known, ", ")
	}
	d.add(d.extent(k), hint, fmt.Sprintf("%s has no key %q", owner, k.Value))
	return nearest(k.Value, known)
}

// applicable reports keys that mean nothing beside what other keys say.
func (d *decoder) applicable(fields []*field, values map[string]*yaml.Node, owner string, obj any) bool {
	ok := true
	for _, f := range fields {
		if v := values[f.key]; v != nil && !f.applies(obj) {
			d.add(d.extent(deref(v)), "leave it out", fmt.Sprintf("%s has %s only with %s", owner, f.key, f.only))
			ok = false
		}
	}
	return ok
}

// requireAll reports required keys that are not among the given.
func (d *decoder) requireAll(fields []*field, given []string, owner string, at span) bool {
	var missing []string
	for _, f := range fields {
		if f.req && !slices.Contains(given, f.key) {
			missing = append(missing, f.key)
		}
	}
	if len(missing) == 0 {
		return true
	}
	word := "key"
	if len(missing) > 1 {
		word = "keys"
	}
	d.errorf(at, "%s lacks the %s %s", owner, word, strings.Join(missing, ", "))
	return false
}

// mark tells obj, if it wants to know, where the value of a key stands.
func mark(obj any, key string, at span) {
	if k, ok := obj.(interface{ mark(string, span) }); ok {
		k.mark(key, at)
	}
}

// to makes a field's dst from a typed accessor.
func to[T, P any](at func(*T) P) func(any) any {
	return func(obj any) any { return at(obj.(*T)) }
}

// when makes a field's when from a typed condition.
func when[T any](cond func(*T) bool) func(any) bool {
	return func(obj any) bool { return cond(obj.(*T)) }
}
