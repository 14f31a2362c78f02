package spec

import (
	"bytes"
	"encoding/json"
)

// Schema is the JSON Schema (draft 2020-12) of the language, for editors. It is
// made from the decoder's table, and is laxer than the decoder only where a
// schema cannot say it: expressions are any text with ${…}, and shapes, names
// and conditions between keys are not checked.
func Schema() []byte {
	root := fieldsSchema(rootFields)
	root["$schema"] = "https://json-schema.org/draft/2020-12/schema"
	root["$id"] = "https://github.com/vitgen/vitgen/spec/schema.json"
	root["title"] = "vitgen model specification, version 1"
	root["$defs"] = object{
		"expression": object{"type": "string", "pattern": `\$\{[^}]+\}`, "description": "an expression in ${…}: + - * / ( ), numbers, constants, loop variables"},
		"layers":     object{"type": "array", "minItems": 1, "items": object{"$ref": "#/$defs/layer"}},
		"layer":      layerUnion.schema(),
		"init":       initUnion.schema(),
		"plain_init": plainInit.union.schema(),
	}
	root["properties"].(object)["vitgen"] = object{"const": languageVersion, "description": findField(rootFields, "vitgen").doc}

	var b bytes.Buffer
	enc := json.NewEncoder(&b) // sorts the keys of maps
	enc.SetEscapeHTML(false)
	enc.SetIndent("", "  ")
	if err := enc.Encode(root); err != nil {
		panic("BUG: the schema is no JSON: " + err.Error())
	}
	return b.Bytes()
}

// fieldsSchema describes a map with these keys.
func fieldsSchema(fields []*field) object {
	props := object{}
	var required []string
	for _, f := range fields {
		s := object{}
		for k, v := range f.typ.schema() {
			s[k] = v
		}
		s["description"] = f.doc
		props[f.key] = s
		if f.req {
			required = append(required, f.key)
		}
	}
	s := object{"type": "object", "properties": props, "additionalProperties": false}
	if required != nil {
		s["required"] = required
	}
	return s
}

// schema describes the forms a choice can be written in: the words that need
// no keys, and a map with one word as its only key.
func (u *union) schema() object {
	props := object{}
	var bare []string
	for _, v := range u.rows {
		if v.bare() {
			bare = append(bare, v.word)
		}
		body := fieldsSchema(v.fields)
		if v.short != "" {
			body = object{"anyOf": []any{body, v.field(v.short).typ.schema()}}
		}
		body["description"] = v.doc
		props[v.word] = body
	}
	one := object{"type": "object", "properties": props, "additionalProperties": false, "minProperties": 1, "maxProperties": 1}
	if bare == nil {
		return one
	}
	return object{"anyOf": []any{object{"enum": bare}, one}}
}
