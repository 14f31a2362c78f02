package spec

import (
	"fmt"
	"os"
	"regexp"
	"slices"
	"strings"
	"testing"

	"gopkg.in/yaml.v3"
)

const docFile = "../docs/SPEC.md"

// section is a part of the page that is made from the table.
var section = regexp.MustCompile(`(?s)(<!-- (\w+)(?:: (\w+))? -->\n).*?(<!-- end -->)`)

// TestDocs keeps the made parts of docs/SPEC.md as the table has them.
func TestDocs(t *testing.T) {
	page := string(read(t, docFile))
	used := map[string]bool{}
	want := section.ReplaceAllStringFunc(page, func(old string) string {
		m := section.FindStringSubmatch(old)
		used[m[2]+" "+m[3]] = true
		return m[1] + made(t, m[2], m[3]) + m[4]
	})
	for _, word := range layerUnion.words() {
		if !used["keys "+word] || !strings.Contains(page, "\n### "+word+"\n") {
			t.Errorf("the layer %s is not documented", word)
		}
	}
	if update {
		if err := os.WriteFile(docFile, []byte(want), 0o644); err != nil {
			t.Fatal(err)
		}
	} else if want != page {
		t.Error("docs/SPEC.md is stale; VITGEN_UPDATE=1 go test ./spec rewrites it")
	}
}

func made(t *testing.T, what, name string) string {
	groups := map[string][]*field{"spec": rootFields, "input": inputFields, "init": initFields, "train": trainFields, "normalize": normalizeFields,
		"ema": emaFields, "early_stop": earlyStopFields, "skip_outliers": skipOutliersFields, "augment": augmentFields, "random_resized_crop": resizedCropFields}
	unions := map[string]*union{"init": initUnion, "loss": lossUnion, "optimizer": optimizerUnion, "schedule": scheduleUnion, "data": dataUnion}
	switch what {
	case "keys":
		if v := layerUnion.find(name); v != nil {
			return keyTable(v.fields, v.short, v.make(initDefaults{}))
		}
		if fields := groups[name]; fields != nil {
			doc := newDocument(&decoder{})
			objects := map[string]any{"spec": doc, "input": &doc.Input, "init": doc.init, "train": &doc.Train, "normalize": &doc.Data,
				"ema": &doc.Train.EMA, "early_stop": &doc.Train.EarlyStop, "skip_outliers": &doc.Train.SkipOutliers,
				"augment": &doc.Data.Augment, "random_resized_crop": &doc.Data.Augment.ResizedCrop}
			obj, short := objects[name], ""
			for _, f := range slices.Concat(trainFields, augmentFields) {
				if opt, isOption := f.typ.(optionType); isOption && f.key == name {
					short = opt.short
					if opt.defaults != nil {
						opt.defaults(obj)
					}
				}
			}
			return keyTable(fields, short, obj)
		}
	case "choices":
		if u := unions[name]; u != nil {
			return choices(u)
		}
	case "error":
		src := "model:\n  - patch_embed: {patch: 16, out: \"${hiden}\"}\n  - dropuot: 0.1\n"
		src = strings.Replace(wrap(""), "model:\n", "define: {hidden: 64}\n"+src, 1)
		_, err := Parse("tiny.yaml", []byte(src))
		return "\n```\n" + err.Error() + "\n```\n\n"
	case "limits":
		return limitsTable()
	}
	t.Errorf("docs/SPEC.md asks for %s of %q, which does not exist", what, name)
	return ""
}

// keyTable documents the keys of one map; obj holds their defaults.
func keyTable(fields []*field, short string, obj any) string {
	var b strings.Builder
	b.WriteString("\n| key | value | default | meaning |\n|---|---|---|---|\n")
	keyRows(&b, fields, "", short, obj)
	return b.String() + "\n"
}

func keyRows(b *strings.Builder, fields []*field, prefix, short string, obj any) {
	for _, f := range fields {
		key := "`" + prefix + f.key + "`"
		if f.key == short {
			key += " **·**"
		}
		doc := f.doc
		switch {
		case strings.Contains(f.only, ":"):
			doc += "; only with `" + f.only + "`"
		case f.only != "":
			doc += "; only with " + f.only
		}
		g, isGroup := f.typ.(groupType)
		nested := isGroup && prefix == "" && f.key == "names"
		def := f.def
		switch {
		case f.req:
			def = "required"
		case nested:
			def = "below"
		case def == "":
			def = "`" + f.typ.canon(f.dst(obj)) + "`"
		}
		fmt.Fprintf(b, "| %s | %s | %s | %s |\n", key, f.typ.describe(), def, doc)
		if nested {
			keyRows(b, g.rows, f.key+".", "", f.dst(obj))
		}
	}
}

// choices documents the variants of a union.
func choices(u *union) string {
	var b strings.Builder
	b.WriteString("\n")
	for _, v := range u.rows {
		fmt.Fprintf(&b, "**`%s`**: %s.\n", v.word, v.doc)
		if len(v.fields) > 0 {
			b.WriteString(keyTable(v.fields, v.short, v.make(initDefaults{})))
		} else {
			b.WriteString("\n")
		}
	}
	return b.String()
}

func limitsTable() string {
	var b strings.Builder
	b.WriteString("\n| what | at most |\n|---|---|\n")
	for _, l := range []struct {
		what string
		most int
		unit string
	}{
		{"size of the file", maxBytes, " bytes"},
		{"YAML nodes, aliases written out", maxNodes, ""},
		{"nesting, aliases written out", maxDepth, ""},
		{"one value", maxText, " bytes"},
		{"nesting of an expression", maxExprDepth, ""},
		{"times of one repeat", maxRepeat, ""},
		{"layers, repeats written out", maxLayers, ""},
		{"a size such as out", maxDim, ""},
		{"elements of one tensor, the batch included", maxElems, ""},
		{"length of a name", maxName, " characters"},
	} {
		fmt.Fprintf(&b, "| %s | %d%s |\n", l.what, l.most, l.unit)
	}
	return b.String() + "\n"
}

// TestDocExamples reads every YAML block of the page: whole files are parsed,
// lists of layers decoded (their shapes do not fit one another).
func TestDocExamples(t *testing.T) {
	block := regexp.MustCompile("(?s)```yaml( layers)?\n(.*?)```")
	found := block.FindAllStringSubmatch(string(read(t, docFile)), -1)
	if len(found) < 20 {
		t.Fatalf("only %d examples", len(found))
	}
	for _, m := range found {
		if m[1] == "" {
			if _, err := Parse("docs", []byte(m[2])); err != nil {
				t.Errorf("\n%v", err)
			}
			continue
		}
		var n yaml.Node
		if err := yaml.Unmarshal([]byte(m[2]), &n); err != nil {
			t.Errorf("%v in\n%s", err, m[2])
			continue
		}
		d := &decoder{reporter: newReporter("docs", []byte(m[2])), env: &scope{}}
		layers := d.expand(n.Content[0], "", "")
		if err := d.err(); err != nil || len(layers) == 0 {
			t.Errorf("\n%v", err)
		}
	}
}
