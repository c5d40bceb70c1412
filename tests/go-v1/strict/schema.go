package main

import (
	"encoding/json"
	"fmt"
	"os"

	"google.golang.org/protobuf/encoding/protojson"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/reflect/protodesc"
	"google.golang.org/protobuf/reflect/protoreflect"
	"google.golang.org/protobuf/types/descriptorpb"
	"google.golang.org/protobuf/types/dynamicpb"
)

// schema is MessageLoop v1 and nothing else: whatever it does not know is a failure.
type schema struct {
	in, out, cloudEvent protoreflect.MessageDescriptor
	types               *dynamicpb.Types
}

// loadSchema reads a google.protobuf.FileDescriptorSet with imports.
func loadSchema(path string) (*schema, error) {
	bytes, err := os.ReadFile(path)
	if err != nil {
		return nil, err
	}
	set := &descriptorpb.FileDescriptorSet{}
	if err := proto.Unmarshal(bytes, set); err != nil {
		return nil, fmt.Errorf("%s: %w", path, err)
	}
	files, err := protodesc.NewFiles(set)
	if err != nil {
		return nil, fmt.Errorf("%s: %w", path, err)
	}
	message := func(name protoreflect.FullName) (protoreflect.MessageDescriptor, error) {
		found, err := files.FindDescriptorByName(name)
		if err != nil {
			return nil, fmt.Errorf("%s: %s: %w", path, name, err)
		}
		return found.(protoreflect.MessageDescriptor), nil
	}
	in, err := message("messageloop.v1.InboundMessage")
	if err != nil {
		return nil, err
	}
	out, err := message("messageloop.v1.OutboundMessage")
	if err != nil {
		return nil, err
	}
	cloudEvent, err := message("io.cloudevents.v1.CloudEvent")
	if err != nil {
		return nil, err
	}
	return &schema{in: in, out: out, cloudEvent: cloudEvent, types: dynamicpb.NewTypes(files)}, nil
}

// event normalises an event that is written as proto JSON.
func (s *schema) event(text string) (fields any, err error) {
	message := dynamicpb.NewMessage(s.cloudEvent)
	if err := (protojson.UnmarshalOptions{Resolver: s.types}).Unmarshal([]byte(text), message); err != nil {
		return nil, fmt.Errorf("the test's own event %s: %w", text, err)
	}
	normal, err := protojson.MarshalOptions{UseProtoNames: true, Resolver: s.types}.Marshal(message)
	if err != nil {
		return nil, err
	}
	err = json.Unmarshal(normal, &fields)
	return fields, err
}

// encode turns a request, written as proto JSON, into a frame.
func (s *schema) encode(text string, asJSON bool) ([]byte, error) {
	message := dynamicpb.NewMessage(s.in)
	if err := (protojson.UnmarshalOptions{Resolver: s.types}).Unmarshal([]byte(text), message); err != nil {
		return nil, fmt.Errorf("the test's own request %s: %w", text, err)
	}
	if asJSON {
		// camelCase names, as the SDK sends them.
		return protojson.MarshalOptions{Resolver: s.types}.Marshal(message)
	}
	return proto.Marshal(message)
}

// decode reads a frame strictly: a field outside the schema, at any depth, is an error.
func (s *schema) decode(bytes []byte, asJSON bool) (*frame, error) {
	message := dynamicpb.NewMessage(s.out)
	if asJSON {
		strict := protojson.UnmarshalOptions{DiscardUnknown: false, Resolver: s.types}
		if err := strict.Unmarshal(bytes, message); err != nil {
			return nil, fmt.Errorf("not a v1 frame: %w: %s", err, bytes)
		}
	} else {
		if err := proto.Unmarshal(bytes, message); err != nil {
			return nil, fmt.Errorf("not a v1 frame: %w: %x", err, bytes)
		}
		if err := noUnknown(message); err != nil {
			return nil, fmt.Errorf("not a v1 frame: %w: %x", err, bytes)
		}
	}
	kind := message.WhichOneof(s.out.Oneofs().ByName("envelope"))
	if kind == nil {
		return nil, fmt.Errorf("a frame without an envelope: %x", bytes)
	}
	text, err := protojson.MarshalOptions{UseProtoNames: true, Resolver: s.types}.Marshal(message)
	if err != nil {
		return nil, err
	}
	decoded := &frame{kind: string(kind.Name())}
	return decoded, json.Unmarshal(text, &decoded.fields)
}

func noUnknown(message protoreflect.Message) (err error) {
	if unknown := message.GetUnknown(); len(unknown) > 0 {
		return fmt.Errorf("%s holds unknown fields %x", message.Descriptor().FullName(), []byte(unknown))
	}
	message.Range(func(field protoreflect.FieldDescriptor, value protoreflect.Value) bool {
		switch {
		case field.IsMap():
			if field.MapValue().Message() == nil {
				return true
			}
			value.Map().Range(func(_ protoreflect.MapKey, item protoreflect.Value) bool {
				err = noUnknown(item.Message())
				return err == nil
			})
		case field.Message() == nil:
		case field.IsList():
			for i := 0; i < value.List().Len() && err == nil; i++ {
				err = noUnknown(value.List().Get(i).Message())
			}
		default:
			err = noUnknown(value.Message())
		}
		return err == nil
	})
	return err
}

// frame is an answer or a publication, its fields under their proto names.
type frame struct {
	kind   string
	fields map[string]any
}

// at follows a path of field names and list indices; nil if there is nothing.
func (f *frame) at(path ...any) any {
	return at(f.fields, path...)
}

// text is at for strings; a default, which JSON omits, is "".
func (f *frame) text(path ...any) string {
	value, _ := f.at(path...).(string)
	return value
}

func at(value any, path ...any) any {
	for _, step := range path {
		switch step := step.(type) {
		case string:
			object, _ := value.(map[string]any)
			value = object[step]
		case int:
			list, _ := value.([]any)
			if step >= len(list) {
				return nil
			}
			value = list[step]
		}
	}
	return value
}
