package spec

import (
	"bytes"
	"os"
	"strings"
	"testing"

	"github.com/santhosh-tekuri/jsonschema/v6"
	"gopkg.in/yaml.v3"
)

// TestSchemaFile keeps the committed schema, which editors read, the one the
// table makes.
func TestSchemaFile(t *testing.T) {
	want := Schema()
	if update {
		if err := os.WriteFile("schema.json", want, 0o644); err != nil {
			t.Fatal(err)
		}
	}
	if got := read(t, "schema.json"); !bytes.Equal(got, want) {
		t.Error("schema.json is stale; VITGEN_UPDATE=1 go test ./spec rewrites it")
	}
}

func compileSchema(t *testing.T) *jsonschema.Schema {
	t.Helper()
	doc, err := jsonschema.UnmarshalJSON(bytes.NewReader(Schema()))
	if err != nil {
		t.Fatal(err)
	}
	c := jsonschema.NewCompiler()
	if err := c.AddResource("schema.json", doc); err != nil {
		t.Fatal(err)
	}
	s, err := c.Compile("schema.json")
	if err != nil {
		t.Fatal(err)
	}
	return s
}

func validate(t *testing.T, s *jsonschema.Schema, src []byte) error {
	t.Helper()
	var v any
	if err := yaml.Unmarshal(src, &v); err != nil {
		t.Fatal(err)
	}
	return s.Validate(v)
}

func TestSchemaAccepts(t *testing.T) {
	s := compileSchema(t)
	for _, file := range valid(t) {
		if err := validate(t, s, read(t, file)); err != nil {
			t.Errorf("%s: %v", file, err)
		}
		if err := validate(t, s, parseFile(t, file).Canonical()); err != nil {
			t.Errorf("the canonical form of %s: %v", file, err)
		}
	}
}

// TestSchemaForms shows the schema what may be written in several ways.
func TestSchemaForms(t *testing.T) {
	s := compileSchema(t)
	good := string(read(t, "../examples/vit_tiny.yaml"))
	for _, c := range []struct{ old, new string }{
		{"  seed: 1\n", "  ema: 0.999\n  early_stop: 3\n  skip_outliers: 6\n"},
		{"  seed: 1\n", "  ema: {decay: \"${1 - 0.001}\", warmup: true}\n  early_stop: {patience: 3, min_delta: 0.1}\n  best: loss\n  skip_outliers: {z: 6, window: 2}\n"},
		{"data: digits", "data: {digits: {augment: {random_resized_crop, random_crop: 2, flip: 0, mixup: 1, cutmix: 1}}}"},
		{"data: digits", "data:\n  digits:\n    augment:\n      random_resized_crop: {scale: [0.5, 1]}\n"},
		{"data: digits", "data: image_folder"},
		{"data: digits", "data: {image_folder: {resize: [8, 8], fit: stretch, val: 0.1}}"},
	} {
		changed := strings.Replace(good, c.old, c.new, 1)
		if changed == good {
			t.Fatalf("%q is not in the example", c.old)
		}
		if err := validate(t, s, []byte(changed)); err != nil {
			t.Errorf("%s: %v", c.new, err)
		}
		if _, err := Parse("good.yaml", []byte(changed)); err != nil {
			t.Errorf("%s:\n%v", c.new, err)
		}
	}
}

// TestSchemaRejects shows the schema the mistakes it can see, one at a time.
func TestSchemaRejects(t *testing.T) {
	s := compileSchema(t)
	good := string(read(t, "../examples/vit.yaml"))
	for _, c := range []struct{ old, new string }{
		{"vitgen: 1", "vitgen: 2"},
		{"name: vit\n", "name: ViT\n"},
		{"classes: 10", "classes: ten"},
		{"classes: 10", "class: 10"},
		{`image: [1, "${image}", "${image}"]`, "image: [1, 96]"},
		{"patch: 16, out", "patch: 16, output"},
		{"patch: 16,", "patch: 1.5,"},
		{"- dropout: 0.1", "- dropout: 1.0"},
		{"- gelu", "- gleu"},
		{"- gelu", "- linear"},
		{"times: 2", "times: 0"},
		{"bias: false", "bias: 0"},
		{"init: zeros", "init: pytorch"},
		{"{normal: 1.0}", "{normal: -1.0}"},
		{"{name: head.0}", "{name: head..0}"},
		{"loss: cross_entropy", "loss: crossentropy"},
		{"precision: fp32", "precision: fp16"},
		{"lr: 0.1, ", ""},
		{"lr: 0.1, ", "lr: 0, "},
		{"schedule: constant", "schedule: {cosine: {warmup: 1}}"},
		{"fashion_mnist: {resize: [96, 96]}", "fashion_mnist: {resize: 96}"},
		{"  batch: 128\n", ""},
		{"  batch: 128\n", "  batch: 128\n  ema: 1\n"},
		{"  batch: 128\n", "  batch: 128\n  ema: {warmup: true}\n"},
		{"  batch: 128\n", "  batch: 128\n  early_stop: {patience: 0}\n"},
		{"  batch: 128\n", "  batch: 128\n  skip_outliers: {z: 6, window: 1}\n"},
		{"  batch: 128\n", "  batch: 128\n  best: worst\n"},
		{"{resize: [96, 96]}", "{resize: [96, 96], augment: {flip: 2}}"},
		{"{resize: [96, 96]}", "{resize: [96, 96], augment: {random_resized_crop: 0.08}}"},
		{"{resize: [96, 96]}", "{resize: [96, 96], augment: {rotate: 10}}"},
	} {
		bad := strings.Replace(good, c.old, c.new, 1)
		if bad == good {
			t.Fatalf("%q is not in the example", c.old)
		}
		if validate(t, s, []byte(bad)) == nil {
			t.Errorf("accepted with %q in place of %q", c.new, c.old)
		}
		if _, err := Parse("bad.yaml", []byte(bad)); err == nil {
			t.Errorf("Parse accepted with %q in place of %q", c.new, c.old)
		}
	}
}
