package spec

import "slices"

// Params declares the trained tensors of one layer of a parsed Spec, in the
// order PyTorch registers them. It does not descend into a residual's body.
//
// These functions are the only place where parameter names and shapes are made.
func Params(l Layer) []Param { return l.params() }

// param makes one declaration; suffix "" means the parameter is named as the
// layer is.
func (b *Base) param(suffix string, role Role, init Init, fanIn int, shape ...int) Param {
	name := b.Name
	if suffix != "" {
		name += "." + suffix
	}
	if init.Kind == "pytorch" {
		init.FanIn = fanIn
	}
	return Param{Name: name, Shape: shape, Init: init, Role: role, Pos: b.Pos}
}

func (l *PatchEmbed) params() []Param {
	c := l.In.Dims[0]
	fan := c * l.Patch * l.Patch
	ps := []Param{l.param("weight", RoleWeight, l.Weight, fan, l.Out, c, l.Patch, l.Patch)}
	if l.Bias {
		ps = append(ps, l.param("bias", RoleBias, l.BiasInit, fan, l.Out))
	}
	return ps
}

func (l *ClsToken) params() []Param {
	return []Param{l.param("", RoleToken, l.Init, 0, 1, 1, l.In.Last())}
}

func (l *PosEmbed) params() []Param {
	if l.Type == "sincos" {
		return nil
	}
	return []Param{l.param("", RolePosition, l.Init, 0, 1, l.MaxLen, l.In.Last())}
}

func (l *LayerNorm) params() []Param {
	shape := []int{l.In.Last()}
	if l.Over == "tokens_channels" {
		shape = slices.Clone(l.In.Dims)
	}
	return []Param{
		l.param("weight", RoleNorm, l.Weight, 0, shape...),
		l.param("bias", RoleNorm, l.BiasInit, 0, shape...),
	}
}

func (l *Attention) params() []Param {
	d := l.In.Last()
	var ps []Param
	proj := func(name string, out int, bias bool) {
		ps = append(ps, l.param(name+".weight", RoleWeight, l.Weight, d, out, d))
		if bias {
			ps = append(ps, l.param(name+".bias", RoleBias, l.BiasInit, d, out))
		}
	}
	if l.QKV == "fused" {
		proj(l.Names.QKV, 3*d, l.QKVBias)
	} else {
		proj(l.Names.Q, d, l.QKVBias)
		proj(l.Names.K, d, l.QKVBias)
		proj(l.Names.V, d, l.QKVBias)
	}
	proj(l.Names.O, d, l.OutBias)
	return ps
}

func (l *Linear) params() []Param {
	in := l.In.Last()
	ps := []Param{l.param("weight", RoleWeight, l.Weight, in, l.Out, in)}
	if l.Bias {
		ps = append(ps, l.param("bias", RoleBias, l.BiasInit, in, l.Out))
	}
	return ps
}

func (l *LayerScale) params() []Param {
	return []Param{l.param("gamma", RoleScale, Init{Kind: "constant", A: l.Init}, 0, l.In.Last())}
}
