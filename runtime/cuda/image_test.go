package cuda

import (
	"strings"
	"testing"
	"testing/fstest"
)

func imagesOf(t *testing.T, files string) []image {
	t.Helper()
	fsys := fstest.MapFS{"kernels.cu": {}, "kernels.json": {}, "kernels.sm_x.ptx": {}}
	for _, f := range strings.Fields(files) {
		fsys["kernels."+f] = &fstest.MapFile{}
	}
	images, err := findImages(fsys)
	if err != nil {
		t.Fatal(err)
	}
	return images
}

func TestChoose(t *testing.T) {
	for _, c := range []struct {
		have string
		chip capability
		want string
	}{
		{"sm_80.ptx sm_90.ptx", 80, "sm_80.ptx"},
		{"sm_80.ptx sm_90.ptx", 89, "sm_80.ptx"},
		{"sm_80.ptx sm_90.ptx", 90, "sm_90.ptx sm_80.ptx"},
		{"sm_80.ptx sm_90.ptx", 120, "sm_90.ptx sm_80.ptx"},
		{"sm_80.ptx sm_90.ptx", 75, ""},
		// Machine code of the very chip goes before PTX, that of an older
		// relative after it; that of a newer one, or of another major version,
		// does not run.
		{"sm_80.cubin sm_86.cubin sm_90.cubin sm_80.ptx", 86, "sm_86.cubin sm_80.ptx sm_80.cubin"},
		{"sm_80.cubin sm_86.cubin", 89, "sm_86.cubin sm_80.cubin"},
		{"sm_89.cubin", 86, ""},
		{"sm_80.cubin", 90, ""},
		// Suffixes.
		{"sm_90a.cubin sm_90a.ptx sm_80.ptx", 90, "sm_90a.cubin sm_90a.ptx sm_80.ptx"},
		{"sm_90a.cubin sm_90a.ptx sm_80.ptx", 100, "sm_80.ptx"},
		{"sm_90.ptx sm_90a.ptx", 90, "sm_90a.ptx sm_90.ptx"},
		{"sm_100f.cubin sm_100f.ptx", 103, "sm_100f.ptx sm_100f.cubin"},
		{"sm_100f.cubin sm_100f.ptx", 120, ""},
		{"sm_120.ptx", 121, "sm_120.ptx"},
	} {
		var got []string
		for _, i := range choose(imagesOf(t, c.have), c.chip) {
			got = append(got, strings.TrimPrefix(i.file, "kernels."))
		}
		if g := strings.Join(got, " "); g != c.want {
			t.Errorf("of %s, %s takes %q, want %q", c.have, c.chip, g, c.want)
		}
	}
}

func TestUnfit(t *testing.T) {
	for _, c := range []struct {
		have string
		chip capability
		want []string
	}{
		{"", 90, []string{"no compiled kernels are embedded", "vitgen build vit.yaml --target cpu,cuda", "pip install"}},
		{"sm_80.ptx sm_90.cubin", 75, []string{"Tesla T4 is too old", "sm_75", "sm_80", "kernels.sm_80.ptx"}},
		{"sm_80.cubin", 90, []string{"kernels.sm_80.cubin", "do not run on Tesla T4", "--arch sm_90"}},
	} {
		err := unfit(imagesOf(t, c.have), c.chip, "Tesla T4", "vit.yaml")
		for _, w := range c.want {
			if !strings.Contains(err.Error(), w) {
				t.Errorf("%q on %s: no %q in %v", c.have, c.chip, w, err)
			}
		}
	}
}
