// SPDX-License-Identifier: Apache-2.0

package ocsftest

import (
	"encoding/json"
	"testing"
)

// good is a record that another hand could have written.
const good = `{"time":1700000000000,"metadata":{"version":"1.8.0","product":{"name":"X"},"profiles":["security_control"]},
"category_uid":4,"category_name":"Network Activity","class_uid":4001,"activity_id":5,"activity_name":"Refuse","type_uid":400105,
"type_name":"Network Activity: Refuse","severity_id":1,"action_id":2,"action":"Denied",
"src_endpoint":{"uid":"s"},"dst_endpoint":{"ip":"192.0.2.1","port":443},"connection_info":{"direction_id":2},"unmapped":{"any":{"thing":1}}}`

func TestValidateFindsEachFault(t *testing.T) {
	s := Load(t)
	if p := s.Validate([]byte(good)); len(p) > 0 {
		t.Fatalf("the good record: %v", p)
	}
	for _, c := range []struct {
		name string
		want Fault
		edit func(m map[string]any)
	}{
		{"unknown attribute", UnknownAttribute, func(m map[string]any) { m["flavour"] = "x" }},
		{"unknown attribute of an object", UnknownAttribute, func(m map[string]any) { m["dst_endpoint"].(map[string]any)["flavour"] = "x" }},
		{"required missing", RequiredMissing, func(m map[string]any) { delete(m, "severity_id") }},
		{"required missing in an object", RequiredMissing, func(m map[string]any) { m["connection_info"] = map[string]any{} }},
		{"text for a number", WrongType, func(m map[string]any) { m["time"] = "now" }},
		{"fraction for an integer", WrongType, func(m map[string]any) { m["time"] = 1.5 }},
		{"number for a text", WrongType, func(m map[string]any) { m["message"] = 1 }},
		{"list for an object", WrongType, func(m map[string]any) { m["dst_endpoint"] = []any{} }},
		{"object for a list", WrongType, func(m map[string]any) { m["observables"] = map[string]any{} }},
		{"text for a boolean", WrongType, func(m map[string]any) { m["is_alert"] = "true" }},
		{"enum unknown", UnknownEnum, func(m map[string]any) { m["severity_id"] = 42 }},
		{"enum of texts", UnknownEnum, func(m map[string]any) { m["proxy_http_request"] = map[string]any{"http_method": "BREW"} }},
		{"caption", CaptionMismatch, func(m map[string]any) { m["action"] = "Allowed" }},
		{"caption of the class", CaptionMismatch, func(m map[string]any) { m["class_name"] = "DNS Activity" }},
		{"class unknown", UnknownClass, func(m map[string]any) { m["class_uid"] = 4999 }},
		{"class missing", UnknownClass, func(m map[string]any) { delete(m, "class_uid") }},
		{"category of another class", UnknownEnum, func(m map[string]any) { m["category_uid"] = 1 }},
		{"type_uid", TypeUIDMismatch, func(m map[string]any) { m["type_uid"] = 400101 }},
		{"profile unknown", UnknownProfile, func(m map[string]any) {
			m["metadata"].(map[string]any)["profiles"] = []string{"ai_operation", "security_control"}
		}},
		{"profile not declared", UndeclaredProfile, func(m map[string]any) { m["device"] = map[string]any{"type_id": 1, "uid": "x"} }},
		{"profile of an object not declared", UndeclaredProfile, func(m map[string]any) { m["src_endpoint"].(map[string]any)["container"] = map[string]any{"uid": "x"} }},
		{"at least one of", ConstraintFailed, func(m map[string]any) { delete(m, "src_endpoint"); delete(m, "dst_endpoint") }},
		{"at least one of, in an object", ConstraintFailed, func(m map[string]any) { m["dst_endpoint"] = map[string]any{"port": 1} }},
		{"address pattern", OutOfBounds, func(m map[string]any) { m["dst_endpoint"].(map[string]any)["ip"] = "evil.example" }},
		{"port range", OutOfBounds, func(m map[string]any) { m["dst_endpoint"].(map[string]any)["port"] = 65536 }},
		{"version", WrongVersion, func(m map[string]any) { m["metadata"].(map[string]any)["version"] = "1.7.0" }},
		{"deprecated", Deprecated, func(m map[string]any) { m["proxy"] = map[string]any{"uid": "x"} }},
	} {
		t.Run(c.name, func(t *testing.T) {
			var m map[string]any
			if err := json.Unmarshal([]byte(good), &m); err != nil {
				t.Fatal(err)
			}
			c.edit(m)
			b, err := json.Marshal(m)
			if err != nil {
				t.Fatal(err)
			}
			for _, p := range s.Validate(b) {
				if p.Fault == c.want {
					return
				}
			}
			t.Errorf("not found: %v", s.Validate(b))
		})
	}
	justOne := `{"time":1,"metadata":{"version":"1.8.0","product":{"name":"X"}},"category_uid":3,"class_uid":3003,"activity_id":1,"type_uid":300301,
		"severity_id":1,"user":{"uid":"1"},"privileges":["x"],"group":{"uid":"1"}}`
	if p := s.Validate([]byte(justOne)); len(p) != 1 || p[0].Fault != ConstraintFailed {
		t.Errorf("just one of: %v", p)
	}
	for _, bad := range []string{"", "[]", "1", good + "{}", `{"a":1,"a":2}`, "{\"a\":\"\xff\"}"} {
		if p := s.Validate([]byte(bad)); len(p) != 1 || p[0].Fault != BadJSON {
			t.Errorf("%q: %v", bad, p)
		}
	}
}
