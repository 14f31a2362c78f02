package spec

import (
	"fmt"
	"math"
)

// Options that several data sets have.
var (
	resizeKey = &field{key: "resize", typ: sizeType, doc: "height and width to resize to, as Pillow's bilinear filter does", def: "as they are",
		dst:   to(func(x *Data) []*int { return []*int{&x.Resize[0], &x.Resize[1]} }),
		unset: when(func(x *Data) bool { return x.Resize == [2]int{} })}
	normalizeKey = &field{key: "normalize", typ: groupType{rows: normalizeFields}, doc: "standardize each channel, after scaling to [0, 1]", def: "off",
		dst:   to(func(x *Data) *Data { return x }),
		unset: when(func(x *Data) bool { return len(x.Mean) == 0 })}
	augmentKey = &field{key: "augment", typ: optionType{groupType: groupType{rows: augmentFields}}, doc: "vary the training images at random", def: "off",
		dst:   to(func(x *Data) *Augment { return &x.Augment }),
		unset: when(func(x *Data) bool { return !x.Augment.On() })}

	// folderSizeKey is resize of image_folder, whose pictures have no size in
	// common. checkData fills it in, so that the canonical form always has it.
	folderSizeKey = &field{key: "resize", typ: sizeType, doc: "height and width to resize to, as Pillow's bilinear filter does; those of the input", def: "the input's", dst: resizeKey.dst}

	sizeType = listType{2, intType{1, 1 << 16}}
)

var normalizeFields = []*field{
	{key: "mean", typ: listType{0, anyNumber}, req: true, dst: to(func(x *Data) *[]float64 { return &x.Mean }), doc: "subtracted; one number per channel"},
	{key: "std", typ: listType{0, positive}, req: true, dst: to(func(x *Data) *[]float64 { return &x.Std }), doc: "divided by; one number per channel"},
}

// mixType is the α of a Beta distribution to mix by; the bound keeps its
// samples away from overflow.
var mixType = floatType{lo: 0, hi: 100, text: "from 0 to 100"}

var augmentFields = []*field{
	{key: "random_resized_crop", doc: "a random part of the stored image, resized to the input's size", def: "off",
		typ: optionType{groupType: groupType{rows: resizedCropFields}, bare: true, defaults: func(obj any) {
			c := obj.(*ResizedCrop)
			c.Scale, c.Ratio = [2]float64{0.08, 1}, [2]float64{3. / 4, 4. / 3}
		}},
		dst:   to(func(a *Augment) *ResizedCrop { return &a.ResizedCrop }),
		unset: when(func(a *Augment) bool { return a.ResizedCrop.Scale == [2]float64{} })},
	{key: "random_crop", typ: intType{0, 1 << 16}, dst: to(func(a *Augment) *int { return &a.Padding }), doc: "crop at random from the image with so many zero pixels on every side; 0 is off",
		unset: when(func(a *Augment) bool { return a.Padding == 0 })},
	{key: "flip", typ: floatType{lo: 0, hi: 1, text: "from 0 to 1"}, dst: to(func(a *Augment) *float64 { return &a.Flip }), doc: "probability of swapping left and right",
		unset: when(func(a *Augment) bool { return a.Flip == 0 })},
	{key: "mixup", typ: mixType, dst: to(func(a *Augment) *float64 { return &a.Mixup }), doc: "α of mixup; 0 is off",
		unset: when(func(a *Augment) bool { return a.Mixup == 0 })},
	{key: "cutmix", typ: mixType, dst: to(func(a *Augment) *float64 { return &a.CutMix }), doc: "α of CutMix; 0 is off",
		unset: when(func(a *Augment) bool { return a.CutMix == 0 })},
}

var resizedCropFields = []*field{
	{key: "scale", typ: listType{2, floatType{lo: 0, noLo: true, hi: 1, text: "above 0 and at most 1"}}, dst: to(func(c *ResizedCrop) []*float64 { return []*float64{&c.Scale[0], &c.Scale[1]} }), doc: "least and most of the image's area"},
	{key: "ratio", typ: listType{2, floatType{lo: 0.01, hi: 100, text: "from 0.01 to 100"}}, dst: to(func(c *ResizedCrop) []*float64 { return []*float64{&c.Ratio[0], &c.Ratio[1]} }), doc: "least and most width over height; drawn evenly on a logarithmic scale"},
}

var dataUnion = &union{name: "a data set", rows: []*variant{
	{word: "digits", doc: "1,797 handwritten digits, 1×8×8, 10 classes, embedded in the trainer", make: newData("digits"),
		fields: []*field{normalizeKey, augmentKey}},
	{word: "mnist", doc: "70,000 handwritten digits, 1×28×28, 10 classes, from the four IDX files", make: newData("mnist"),
		fields: []*field{resizeKey, normalizeKey, augmentKey}},
	{word: "fashion_mnist", doc: "70,000 pictures of clothing, 1×28×28, 10 classes, from the four IDX files", make: newData("fashion_mnist"),
		fields: []*field{resizeKey, normalizeKey, augmentKey}},
	{word: "cifar10", doc: "60,000 color photographs, 3×32×32, 10 classes, from the six files of the binary version", make: newData("cifar10"),
		fields: []*field{resizeKey, normalizeKey, augmentKey}},
	{word: "image_folder", doc: "your own pictures, JPEG or PNG, a folder for each class", make: newData("image_folder"),
		fields: []*field{
			folderSizeKey,
			{key: "fit", typ: enumType{"crop", "stretch"}, dst: to(func(x *Data) *string { return &x.Fit }), doc: "crop: scale until the picture covers the size, and cut out the middle; stretch: to the size, whatever its shape"},
			{key: "val", typ: floatType{lo: 0, noLo: true, hi: 1, noHi: true, text: "above 0 and below 1"}, dst: to(func(x *Data) *float64 { return &x.ValPart }), doc: "share of each class that validates, where there are no folders `train` and `val`"},
			normalizeKey, augmentKey,
		}},
	{word: "synthetic", doc: "made images of the model's own input shape, learnable, seeded", make: newData("synthetic"),
		fields: []*field{
			{key: "train", typ: intType{1, math.MaxInt32}, dst: to(func(x *Data) *int { return &x.Train }), doc: "training samples"},
			{key: "val", typ: intType{1, math.MaxInt32}, dst: to(func(x *Data) *int { return &x.Val }), doc: "validation samples"},
			normalizeKey, augmentKey,
		}},
}}

func newData(name string) func(initDefaults) any {
	d := Data{Name: name}
	switch name {
	case "synthetic":
		d.Train, d.Val = 1024, 256
	case "image_folder":
		d.Fit, d.ValPart = "crop", 0.2
	}
	return func(initDefaults) any { c := d; return &c }
}

// dataShapes are what the real data sets hold: channels, height, width, classes.
var dataShapes = map[string][4]int{
	"digits":        {1, 8, 8, 10},
	"mnist":         {1, 28, 28, 10},
	"fashion_mnist": {1, 28, 28, 10},
	"cifar10":       {3, 32, 32, 10},
}

// checkData compares the data set with what the model is fed.
func (c *checker) checkData(s *Spec) {
	x, in := &s.Data, &s.Input
	if have, fixed := dataShapes[x.Name]; fixed {
		c.checkFixed(x, in, have)
	}
	if x.Name == "image_folder" {
		c.checkFolder(x, in)
	}
	for _, n := range []struct {
		key string
		len int
	}{{"mean", len(x.Mean)}, {"std", len(x.Std)}} {
		if n.len != 0 && n.len != in.Channels {
			c.errorf(x.at[n.key], "%s must have one number for each of the %d channels, not %d", n.key, in.Channels, n.len)
		}
	}
	c.checkAugment(&x.Augment, in)
}

// checkFixed looks at a data set whose images have one size.
func (c *checker) checkFixed(x *Data, in *Input, have [4]int) {
	h, w := have[1], have[2]
	hint := ""
	if x.Resize != [2]int{} {
		h, w = x.Resize[0], x.Resize[1]
	} else if x.Name != "digits" {
		hint = fmt.Sprintf("resize the images: {%s: {resize: [%d, %d]}}", x.Name, in.Height, in.Width)
	}
	if in.Channels != have[0] || in.Height != h || in.Width != w {
		if in.Channels != have[0] {
			hint = ""
		}
		c.add(c.orKey(&x.keys, "resize", x.Pos, x.Name), hint, fmt.Sprintf("%s gives images of [%d, %d, %d]; the input is [%d, %d, %d]",
			x.Name, have[0], h, w, in.Channels, in.Height, in.Width))
	}
	if in.Classes != have[3] {
		c.errorf(in.at["classes"], "%s has %d classes, not %d", x.Name, have[3], in.Classes)
	}
}

// checkFolder looks at a folder of pictures, and settles their size. How many
// classes there are is only seen when the trainer opens it.
func (c *checker) checkFolder(x *Data, in *Input) {
	if in.Channels != 1 && in.Channels != 3 {
		c.errorf(in.at["image"], "image_folder gives images of 1 channel (gray) or 3 (red, green, blue), not %d", in.Channels)
	}
	size := [2]int{in.Height, in.Width}
	if x.Resize != [2]int{} && x.Resize != size {
		c.add(x.at["resize"], "leave resize out", fmt.Sprintf("resize must be the size of the input, [%d, %d]", in.Height, in.Width))
		return
	}
	x.Resize = size
}

func (c *checker) checkAugment(a *Augment, in *Input) {
	if most := min(in.Height, in.Width); a.Padding >= most {
		c.errorf(a.at["random_crop"], "random_crop must be below the size of the image: with %d pixels around one of %d×%d, crops could hold nothing of it",
			a.Padding, in.Height, in.Width)
	}
	for _, r := range []struct {
		key  string
		span [2]float64
	}{{"scale", a.ResizedCrop.Scale}, {"ratio", a.ResizedCrop.Ratio}} {
		if r.span[0] > r.span[1] {
			c.errorf(a.ResizedCrop.at[r.key], "%s must be [least, most]: %s is above %s", r.key, formatFloat(r.span[0]), formatFloat(r.span[1]))
		}
	}
}
