// SPDX-License-Identifier: Apache-2.0

package doubles_test

import (
	"net/http"
	"testing"

	"github.com/ringfence/ringfence/test/doubles"
)

// TestVerifyKnowsTheDocumentedSignatures: those of Amazon's test suite for Signature
// Version 4 and of the IAM User Guide.
func TestVerifyKnowsTheDocumentedSignatures(t *testing.T) {
	const scope = "AWS4-HMAC-SHA256 Credential=AKIDEXAMPLE/20150830/us-east-1/"
	for _, c := range []struct {
		name, method, target, host, service, signed, signature string
		header                                                 http.Header
	}{
		{"get-vanilla", "GET", "/", "example.amazonaws.com", "service", "host;x-amz-date", "5fa00fa31553b73ebf1942676e86291e8372ff2a2260956d9b8aae1d763fbf31", nil},
		{"post-vanilla", "POST", "/", "example.amazonaws.com", "service", "host;x-amz-date", "5da7c1a2acd57cee7505fc6676e4e544621c30862966e37dddb68e92efbe5d6b", nil},
		{"get-vanilla-query-order-key-case", "GET", "/?Param2=value2&Param1=value1", "example.amazonaws.com", "service", "host;x-amz-date",
			"b97d918cfa904a5beff61c982a1b6f458b799221646efd99d3219ec94cdf2500", nil},
		{"ListUsers", "GET", "/?Action=ListUsers&Version=2010-05-08", "iam.amazonaws.com", "iam", "content-type;host;x-amz-date",
			"5d672d79c15b13162d9279b0855cfba6789a8edb4c82c400e06b5924a6f2b5d7", http.Header{"Content-Type": {"application/x-www-form-urlencoded; charset=utf-8"}}},
	} {
		r := doubles.Received{Method: c.method, Target: c.target, Host: c.host, Header: c.header.Clone()}
		if r.Header == nil {
			r.Header = http.Header{}
		}
		r.Header.Set("X-Amz-Date", "20150830T123600Z")
		r.Header.Set("Authorization", scope+c.service+"/aws4_request, SignedHeaders="+c.signed+", Signature="+c.signature)
		key := doubles.AWSKey{ID: "AKIDEXAMPLE", Secret: "wJalrXUtnFEMI/K7MDENG+bPxRfiCYEXAMPLEKEY", Region: "us-east-1", Service: c.service}
		if err := key.Verify(r); err != nil {
			t.Errorf("%s: %v", c.name, err)
		}
		r.Body = []byte("x")
		if key.Verify(r) == nil {
			t.Errorf("%s: another body has the same signature", c.name)
		}
	}
}
