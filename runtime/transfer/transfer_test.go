package transfer

import (
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/vitgen/vitgen/runtime"
	"github.com/vitgen/vitgen/runtime/internal/fake"
	"github.com/vitgen/vitgen/runtime/safetensors"
)

const dim = 6

// vit is the parameters of a ViT of one block with timm's names, or, with
// separate projections, W_q, W_k and W_v in place of qkv.
func vit(image [3]int, patch, classes int, joint bool) *runtime.Model {
	m := &runtime.Model{Name: "vit", SpecFile: "vit.yaml", Image: image, Classes: classes}
	add := func(name string, shape ...int) {
		p := runtime.Param{Name: name, Shape: shape, Offset: m.ParamElems}
		m.Params, m.ParamElems = append(m.Params, p), m.ParamElems+p.Elems()
	}
	linear := func(name string, out int) { add(name+".weight", out, dim); add(name+".bias", out) }
	norm := func(name string) { add(name+".weight", dim); add(name+".bias", dim) }
	add("cls_token", 1, 1, dim)
	add("pos_embed", 1, 1+image[1]/patch*(image[2]/patch), dim)
	add("patch_embed.proj.weight", dim, image[0], patch, patch)
	norm("blocks.0.norm1")
	if joint {
		linear("blocks.0.attn.qkv", 3*dim)
	} else {
		for _, w := range separate {
			linear("blocks.0.attn."+w, dim)
		}
	}
	linear("blocks.0.attn.proj", dim)
	norm("blocks.0.norm2")
	linear("blocks.0.mlp.fc1", 2*dim)
	add("blocks.0.mlp.fc2.weight", dim, 2*dim)
	add("blocks.0.mlp.fc2.bias", dim)
	norm("norm")
	linear("head", classes)
	return m
}

// fileOf is a weights file of a model: parameter by parameter 0, 1, 2, …
// through the whole file.
func fileOf(m *runtime.Model) *safetensors.File {
	f := &safetensors.File{}
	x := float32(0)
	for _, p := range m.Params {
		v := make([]float32, p.Elems())
		for i := range v {
			v[i], x = x, x+1
		}
		f.Tensors = append(f.Tensors, safetensors.FromFloat32s(p.Name, p.Shape, v))
	}
	sortTensors(f)
	return f
}

func sortTensors(f *safetensors.File) {
	slices.SortFunc(f.Tensors, func(a, b safetensors.Tensor) int { return strings.Compare(a.Name, b.Name) })
}

// renamed renames a file's tensors.
func renamed(f *safetensors.File, name func(string) string) *safetensors.File {
	for i := range f.Tensors {
		f.Tensors[i].Name = name(f.Tensors[i].Name)
	}
	sortTensors(f)
	return f
}

func rules(t *testing.T, lines ...string) []Rename {
	t.Helper()
	var all []Rename
	for _, l := range lines {
		r, err := ParseRename(l)
		if err != nil {
			t.Fatal(err)
		}
		all = append(all, r)
	}
	return all
}

// wantValues checks that the values are those of the file's tensors of the
// same names.
func wantValues(t *testing.T, f *safetensors.File, values map[string][]float32, names ...string) {
	t.Helper()
	for _, n := range names {
		if diff := cmp.Diff(f.Tensor(n).Float32s(), values[n]); diff != "" {
			t.Errorf("%s (-file +model):\n%s", n, diff)
		}
	}
}

func names(m *runtime.Model) []string {
	var all []string
	for _, p := range m.Params {
		all = append(all, p.Name)
	}
	return all
}

// TestSame: what fits is taken as it is.
func TestSame(t *testing.T) {
	m := vit([3]int{3, 8, 8}, 2, 5, true)
	f := fileOf(m)
	values, r, err := match(m, f, Options{})
	if err != nil {
		t.Fatal(err)
	}
	wantValues(t, f, values, names(m)...)
	if r.Count(Taken) != len(m.Params) || len(r.Unused) != 0 {
		t.Errorf("%v", r)
	}
	if got := r.String(); strings.Count(got, "\n") != 1 || !strings.Contains(got, "19 of 19 parameters taken") {
		t.Errorf("the report of a plain load is\n%s", got)
	}
}

// mapOf reads a file of renames that comes with the examples.
func mapOf(t *testing.T, name string) []Rename {
	t.Helper()
	all, err := ReadRenames(filepath.Join("..", "..", "examples", "maps", name))
	if err != nil {
		t.Fatal(err)
	}
	return all
}

// TestHuggingFace maps the names of transformers' ViT, whose attention has
// separate projections, onto timm's.
func TestHuggingFace(t *testing.T) {
	m := vit([3]int{3, 8, 8}, 2, 5, true)
	from := vit([3]int{3, 8, 8}, 2, 5, false)
	theirs := strings.NewReplacer(
		"patch_embed.proj", "vit.embeddings.patch_embeddings.projection",
		"cls_token", "vit.embeddings.cls_token", "pos_embed", "vit.embeddings.position_embeddings",
		"blocks.0.norm1", "vit.encoder.layer.0.layernorm_before", "blocks.0.norm2", "vit.encoder.layer.0.layernorm_after",
		"blocks.0.attn.proj", "vit.encoder.layer.0.attention.output.dense",
		"blocks.0.attn.W_q", "vit.encoder.layer.0.attention.attention.query",
		"blocks.0.attn.W_k", "vit.encoder.layer.0.attention.attention.key",
		"blocks.0.attn.W_v", "vit.encoder.layer.0.attention.attention.value",
		"blocks.0.mlp.fc1", "vit.encoder.layer.0.intermediate.dense", "blocks.0.mlp.fc2", "vit.encoder.layer.0.output.dense",
		"norm", "vit.layernorm", "head", "classifier")
	plain := fileOf(from)
	f := renamed(fileOf(from), theirs.Replace)
	pooler := safetensors.FromFloat32s("vit.pooler.dense.bias", []int{1}, []float32{1})
	f.Tensors = append(f.Tensors, pooler)
	sortTensors(f)

	o := Options{Rename: mapOf(t, "huggingface_vit.map")}
	values, r, err := match(m, f, o)
	if err != nil {
		t.Fatal(err)
	}
	for _, name := range names(m) {
		if plain.Tensor(name) != nil {
			wantValues(t, plain, values, name)
		}
	}
	for _, kind := range []string{".weight", ".bias"} {
		var want []float32
		for _, w := range separate {
			want = append(want, plain.Tensor("blocks.0.attn."+w+kind).Float32s()...)
		}
		if diff := cmp.Diff(want, values["blocks.0.attn.qkv"+kind]); diff != "" {
			t.Errorf("qkv%s: %s", kind, diff)
		}
	}
	want := []Param{
		{Name: "cls_token", How: Taken, From: []string{"vit.embeddings.cls_token"}},
		{Name: "pos_embed", How: Taken, From: []string{"vit.embeddings.position_embeddings"}},
		{Name: "patch_embed.proj.weight", How: Taken, From: []string{"vit.embeddings.patch_embeddings.projection.weight"}},
		{Name: "blocks.0.norm1.weight", How: Taken, From: []string{"vit.encoder.layer.0.layernorm_before.weight"}},
		{Name: "blocks.0.norm1.bias", How: Taken, From: []string{"vit.encoder.layer.0.layernorm_before.bias"}},
		{Name: "blocks.0.attn.qkv.weight", How: Joined, From: []string{
			"vit.encoder.layer.0.attention.attention.query.weight", "vit.encoder.layer.0.attention.attention.key.weight", "vit.encoder.layer.0.attention.attention.value.weight"}},
	}
	if diff := cmp.Diff(want, r.Params[:6]); diff != "" {
		t.Error(diff)
	}
	if diff := cmp.Diff([]Unused{{"vit.pooler.dense.bias", "left out by --map"}}, r.Unused); diff != "" {
		t.Error(diff)
	}

	// The same without a head and without the prefix, as base models are saved.
	bare := renamed(f, func(n string) string { return strings.TrimPrefix(n, "vit.") })
	bare.Tensors = slices.DeleteFunc(bare.Tensors, func(x safetensors.Tensor) bool { return strings.HasPrefix(x.Name, "classifier") })
	if _, r, err := match(m, bare, Options{Rename: o.Rename, ResetHead: true}); err != nil || r.Count(Reset) != 2 {
		t.Errorf("a base model: %v, %v", r, err)
	}

	// And the other way round: a joint projection is split into three.
	values, r, err = match(from, fileOf(m), Options{})
	if err != nil {
		t.Fatal(err)
	}
	all := fileOf(m).Tensor("blocks.0.attn.qkv.weight").Float32s()
	if diff := cmp.Diff(all[dim*dim:2*dim*dim], values["blocks.0.attn.W_k.weight"]); diff != "" {
		t.Error(diff)
	}
	if r.Count(Split) != 6 {
		t.Errorf("%v", r)
	}
}

// TestTorchvision maps torchvision's names onto timm's.
func TestTorchvision(t *testing.T) {
	m := vit([3]int{3, 8, 8}, 2, 5, true)
	for _, mlp := range [][2]string{{"0", "3"}, {"linear_1", "linear_2"}} { // newer and older
		theirs := strings.NewReplacer("patch_embed.proj", "conv_proj", "cls_token", "class_token", "pos_embed", "encoder.pos_embedding",
			"blocks.0.norm1", "encoder.layers.encoder_layer_0.ln_1", "blocks.0.norm2", "encoder.layers.encoder_layer_0.ln_2",
			"blocks.0.attn.qkv.", "encoder.layers.encoder_layer_0.self_attention.in_proj_",
			"blocks.0.attn.proj", "encoder.layers.encoder_layer_0.self_attention.out_proj",
			"blocks.0.mlp.fc1", "encoder.layers.encoder_layer_0.mlp."+mlp[0], "blocks.0.mlp.fc2", "encoder.layers.encoder_layer_0.mlp."+mlp[1],
			"norm", "encoder.ln", "head", "heads.head")
		values, r, err := match(m, renamed(fileOf(m), theirs.Replace), Options{Rename: mapOf(t, "torchvision_vit.map")})
		if err != nil || r.Count(Taken) != len(m.Params) {
			t.Fatalf("%v, %v", r, err)
		}
		wantValues(t, fileOf(m), values, names(m)...)
	}
}

// TestHeadAndPartial: other classes need a flag, and so does what is missing.
func TestHeadAndPartial(t *testing.T) {
	m := vit([3]int{3, 8, 8}, 2, 5, true)
	f := fileOf(vit([3]int{3, 8, 8}, 2, 1000, true))
	_, _, err := match(m, f, Options{})
	for _, want := range []string{
		"model vit (vit.yaml)",
		"head.weight has shape [1000 6], the model wants [5 6], for 5 classes: --reset-head",
		"head.bias has shape [1000], the model wants [5], for 5 classes: --reset-head",
	} {
		if err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("no %q in %v", want, err)
		}
	}
	values, r, err := match(m, f, Options{ResetHead: true})
	if err != nil {
		t.Fatal(err)
	}
	if _, set := values["head.weight"]; set || r.Count(Reset) != 2 || r.Count(Taken) != len(m.Params)-2 || r.headTaken(m) {
		t.Errorf("%v", r)
	}

	f = renamed(f, func(n string) string { return strings.Replace(n, "cls_token", "class_token", 1) })
	_, _, err = match(m, f, Options{ResetHead: true})
	for _, want := range []string{"missing cls_token [1 1 6]", "unknown class_token [1 1 6]", "--partial"} {
		if err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("no %q in %v", want, err)
		}
	}
	_, r, err = match(m, f, Options{ResetHead: true, Partial: true})
	if err != nil || r.Count(Missing) != 1 || len(r.Unused) != 1 {
		t.Errorf("%v, %v", r, err)
	}
	if _, _, err := match(m, f, Options{Partial: true}); err == nil || !strings.Contains(err.Error(), "--reset-head") {
		t.Errorf("--partial accepts another shape: %v", err)
	}
}

// TestHints: a prefix that all names have, or all lack, is found, and the rule
// that is suggested does what it should.
func TestHints(t *testing.T) {
	m := vit([3]int{3, 8, 8}, 2, 5, true)
	inner := vit([3]int{3, 8, 8}, 2, 5, true)
	for i := range inner.Params {
		inner.Params[i].Name = "inner." + inner.Params[i].Name
	}
	for _, c := range []struct {
		model *runtime.Model
		file  *safetensors.File
		rule  string
	}{
		{m, renamed(fileOf(m), func(n string) string { return "module.model." + n }), `^module\.model\.=`},
		{inner, fileOf(m), "^=inner."},
	} {
		_, _, err := match(c.model, c.file, Options{})
		if err == nil || !strings.Contains(err.Error(), "try --map '"+c.rule+"'") {
			t.Errorf("no %q in %v", c.rule, err)
		}
		if _, _, err := match(c.model, c.file, Options{Rename: rules(t, c.rule)}); err != nil {
			t.Errorf("%s: %v", c.rule, err)
		}
	}
	some := renamed(fileOf(m), func(n string) string { return strings.TrimPrefix(n, "blocks.") })
	if _, _, err := match(m, some, Options{}); err == nil || strings.Contains(err.Error(), "try --map") {
		t.Errorf("a rule that breaks what fits is suggested: %v", err)
	}
}

func TestMistakes(t *testing.T) {
	m := vit([3]int{3, 8, 8}, 2, 5, true)
	for _, c := range []struct {
		o    Options
		want string
	}{
		{Options{Rename: rules(t, "nothing=x")}, "--map nothing=x fits no tensor"},
		{Options{Rename: rules(t, "(weight|bias)=x")}, "blocks.0.attn.proj.bias and blocks.0.attn.proj.weight are both called blocks.0.attn.proj.x"},
		{Options{Rename: rules(t, "e=eeeeeeeeeeeeeeeeeeee", "e=eeeeeeeeeeeeeeeeeeee", "e=eeeeeeeeeeeeeeeeeeee", "e=eeeeeeeeeeeeeeeeeeee")}, "makes a name of"},
		{Options{Grid: [2]int{3, 5}}, "--init-grid 3x5 does not make 17 rows with 1 of class tokens"},
		{Options{Grid: [2]int{1 << 62, 4}}, "does not make 17 rows"},
	} {
		_, _, err := match(m, fileOf(m), c.o)
		if err == nil || !strings.Contains(err.Error(), c.want) {
			t.Errorf("no %q in %v", c.want, err)
		}
	}
	if _, _, err := match(m, &safetensors.File{}, Options{Partial: true, Grid: [2]int{4, 4}}); err == nil || !strings.Contains(err.Error(), "--init-grid: there are no") {
		t.Errorf("--init-grid without positions: %v", err)
	}
	f := fileOf(m)
	*f.Tensor("head.bias") = safetensors.FromInt64s("head.bias", []int{5}, make([]int64, 5))
	if _, _, err := match(m, f, Options{}); err == nil || !strings.Contains(err.Error(), "head.bias is I64, not a floating type") {
		t.Errorf("integers: %v", err)
	}
}

func TestParseRename(t *testing.T) {
	for text, want := range map[string]string{
		"":                                   "is not OLD=NEW",
		"=x":                                 "is not OLD=NEW",
		"x":                                  "is not OLD=NEW",
		"(=x":                                "missing closing )",
		"x*=y":                               "matches the empty text",
		`a(\d+)=b$2`:                         "has no group 2",
		`a(\d+)=b$1x`:                        "has no group 1x; write ${1}",
		`a(?P<n>.)=b$m`:                      "has no group m",
		"a=" + strings.Repeat("b", maxNew+1): "more than 1024",
	} {
		if _, err := ParseRename(text); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%.30q: no %q in %v", text, want, err)
		}
	}
	for _, ok := range []string{`a(\d+)=b${1}x`, `a(?P<n>.)=$n$$x`, "^=pre.", "a=b=c"} {
		if r, err := ParseRename(ok); err != nil || r.String() != ok {
			t.Errorf("%s: %v, %v", ok, r, err)
		}
	}
	path := filepath.Join(t.TempDir(), "rules")
	if err := os.WriteFile(path, []byte("# timm\n\n^model\\.=\r\n  a=b\nx(=y\n"), 0o644); err != nil {
		t.Fatal(err)
	}
	if _, err := ReadRenames(path); err == nil || !strings.HasPrefix(err.Error(), path+":5: ") {
		t.Errorf("a mistake in line 5: %v", err)
	}
	if err := os.WriteFile(path, []byte("# timm\n\n^model\\.=\r\n  a=b\n"), 0o644); err != nil {
		t.Fatal(err)
	}
	if got, err := ReadRenames(path); err != nil || fmt.Sprint(got) != `[^model\.= a=b]` {
		t.Errorf("%v, %v", got, err)
	}
	if _, err := ReadRenames(t.TempDir()); err == nil {
		t.Error("a directory was read as rules")
	}
}

// TestInit puts another type of numbers, renamed, into a session: parameters
// not taken keep their values, and training starts anew.
func TestInit(t *testing.T) {
	m := fake.New([3]int{1, 3, 2}, 4, 4, runtime.Train{Seed: 3, EMA: runtime.EMA{Decay: 0.9}})
	s, err := runtime.NewSession(m, runtime.Options{Device: "cpu", Threads: 1})
	if err != nil {
		t.Fatal(err)
	}
	defer s.Close()
	if _, _, err := s.Step(make([]float32, 6), []int32{1}); err != nil {
		t.Fatal(err)
	}
	bias, err := s.Param("head.bias")
	if err != nil {
		t.Fatal(err)
	}
	data := make([]byte, 2*24) // BF16: 1, 1, …
	for i := range 24 {
		data[2*i], data[2*i+1] = 0x80, 0x3f
	}
	path := filepath.Join(t.TempDir(), "w.safetensors")
	f := &safetensors.File{
		Metadata: map[string]string{"vitgen.classes": `["a","b","c","d"]`},
		Tensors:  []safetensors.Tensor{{Name: "x.weight", DType: safetensors.BF16, Shape: []int{4, 6, 1}, Data: data}},
	}
	if err := safetensors.Write(path, f); err != nil {
		t.Fatal(err)
	}
	if _, err := Init(s, path, Options{}); err == nil || !strings.Contains(err.Error(), path) || s.Updates() != 1 {
		t.Errorf("%v after %d updates", err, s.Updates())
	}
	r, err := Init(s, path, Options{Rename: rules(t, "^x=head"), Partial: true})
	if err != nil {
		t.Fatal(err)
	}
	weight, _ := s.Param("head.weight")
	if weight[0] != 1 || weight[23] != 1 {
		t.Errorf("weights are %v", weight)
	}
	if now, _ := s.Param("head.bias"); !slices.Equal(now, bias) {
		t.Errorf("the bias is %v, was %v", now, bias)
	}
	if err := s.SwapAverage(); err != nil { // the average starts there, too
		t.Fatal(err)
	}
	if average, _ := s.Param("head.weight"); !slices.Equal(average, weight) {
		t.Errorf("the average starts with %v", average)
	}
	if err := s.SwapAverage(); err != nil {
		t.Fatal(err)
	}
	if s.Updates() != 0 || s.Classes() != nil || len(r.SHA256) != 64 || r.File != path {
		t.Errorf("%d updates, classes %q, report %v", s.Updates(), s.Classes(), r)
	}
	if got := r.String(); !strings.Contains(got, "head.weight ← x.weight: converted from BF16, shape [4 6] instead of [4 6 1]") {
		t.Errorf("the report is\n%s", got)
	}
	f.Tensors = append(f.Tensors, safetensors.FromFloat32s("x.bias", []int{4}, make([]float32, 4)))
	if err := safetensors.Write(path, f); err != nil {
		t.Fatal(err)
	}
	if _, err := Init(s, path, Options{Rename: rules(t, "^x=head")}); err != nil || !slices.Equal(s.Classes(), []string{"a", "b", "c", "d"}) {
		t.Errorf("classes %q, %v", s.Classes(), err)
	}
	if _, err := Init(s, path+"x", Options{}); !os.IsNotExist(err) {
		t.Errorf("no file: %v", err)
	}
}
