// SPDX-License-Identifier: Apache-2.0

package inference

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"net/http"
	"regexp"
	"strings"

	"github.com/aws/aws-sdk-go-v2/aws"
	v4 "github.com/aws/aws-sdk-go-v2/aws/signer/v4"
)

// bedrock is Amazon Bedrock with Anthropic's models: InvokeModel and
// InvokeModelWithResponseStream. The body has a version instead of model and stream,
// and the beta header in a member. The answer is the dialect's own, in a stream inside
// of Amazon's binary frames. Sources: Bedrock API reference (InvokeModel), Anthropic's
// page "Claude on Amazon Bedrock", anthropic-sdk-go v1.84 package bedrock.
//
// Region: that of the base URL's host, bedrock-runtime.REGION.amazonaws.com, else the
// one of the document. Credential: see awsCredential.
var bedrock = platform{name: "bedrock", dialects: []string{"anthropic"}, address: addressBedrock, authorize: authorizeBedrock, answer: answerBedrock}

const bedrockVersion = "bedrock-2023-05-31"

// ownMembers are members of a platform's bodies that the dialect does not have. A
// request that has them already would have them twice.
var ownMembers = []string{"anthropic_version", "anthropic_beta"}

func addressBedrock(o *outbound) *refusal {
	if o.route.path != "/v1/messages" {
		return o.lacks("bedrock")
	}
	if ref := o.noOwnMembers(); ref != nil {
		return ref
	}
	add := `"anthropic_version":"` + bedrockVersion + `"`
	if betas := headerList(o.head.Values("Anthropic-Beta")); len(betas) > 0 {
		add += `,"anthropic_beta":` + string(mustJSON(betas))
	}
	verb := "invoke"
	o.body = o.tape.withMembers(add, o.topMember("model"), o.topMember("stream"))
	if o.stream {
		verb = "invoke-with-response-stream"
	}
	o.path, o.query = "/model/"+escapeSegment(o.model)+"/"+verb, ""
	o.keep("Content-Type", "User-Agent")
	o.head.Set("Accept", "application/json")
	if o.stream {
		o.head.Set("Accept", eventStreamType)
	}
	return nil
}

func (o *outbound) noOwnMembers() *refusal {
	for _, name := range ownMembers {
		if o.topMember(name) != 0 {
			ref := invalid(http.StatusBadRequest, "body", "the field "+quote(name)+" is no part of this API", "Leave it out")
			ref.param = name
			return ref
		}
	}
	return nil
}

// topMember is the node of a top-level member, 0 if there is none.
func (o *outbound) topMember(name string) uint32 {
	if len(o.tape.nodes) == 0 {
		return 0
	}
	i, _ := o.tape.member(0, name)
	return i
}

// headerList are the values of a header that is a list.
func headerList(values []string) (out []string) {
	for _, v := range values {
		for _, s := range strings.Split(v, ",") {
			if s = strings.TrimSpace(s); s != "" {
				out = append(out, s)
			}
		}
	}
	return out
}

// awsCredential reads a secret: what credential_process programs print (JSON with
// AccessKeyId, SecretAccessKey and, of temporary ones, SessionToken), the same three
// with colons between them, or a Bedrock API key, which is sent as it is.
func awsCredential(text string) (c aws.Credentials, bearer string, err error) {
	if strings.HasPrefix(text, "{") {
		var j struct{ AccessKeyId, SecretAccessKey, SessionToken string } //nolint:revive // the names are Amazon's
		if json.Unmarshal([]byte(text), &j) != nil {
			return c, "", errBadKey
		}
		c = aws.Credentials{AccessKeyID: j.AccessKeyId, SecretAccessKey: j.SecretAccessKey, SessionToken: j.SessionToken}
	} else if id, rest, ok := strings.Cut(text, ":"); ok && accessKeyID.MatchString(id) {
		c.AccessKeyID = id
		c.SecretAccessKey, c.SessionToken, _ = strings.Cut(rest, ":")
	} else {
		bearer = text
	}
	for _, s := range []string{c.AccessKeyID + bearer, c.SecretAccessKey + bearer, c.SessionToken + "x"} {
		if s == "" || !headerSafe(s) {
			return aws.Credentials{}, "", errBadKey
		}
	}
	return c, bearer, nil
}

var accessKeyID = regexp.MustCompile(`^A[A-Z0-9]{15,127}$`)

// awsRegion finds the region in a host of Bedrock.
var awsRegion = regexp.MustCompile(`(?:^|\.)bedrock-runtime(?:-fips)?\.([a-z0-9-]+)\.(?:vpce\.)?(?:amazonaws\.com(?:\.cn)?|api\.aws)$`)

func authorizeBedrock(ctx context.Context, o *outbound, req *http.Request) ([]string, error) {
	c, bearer, err := awsCredential(o.key)
	if err != nil {
		return nil, err
	}
	if bearer != "" {
		req.Header.Set("Authorization", "Bearer "+bearer)
		return []string{bearer}, nil
	}
	region := o.region
	if m := awsRegion.FindStringSubmatch(o.base.Hostname()); m != nil {
		region = m[1]
	}
	if region == "" {
		return nil, errNoRegion
	}
	sum := sha256.Sum256(o.body)
	if err := v4.NewSigner().SignHTTP(ctx, c, req, hex.EncodeToString(sum[:]), "bedrock", region, o.now()); err != nil {
		return nil, err
	}
	secrets := []string{c.SecretAccessKey}
	if c.SessionToken != "" {
		secrets = append(secrets, c.SessionToken)
	}
	return secrets, nil
}

func answerBedrock(o *outbound, resp *http.Response) {
	kind, _, _ := strings.Cut(resp.Header.Get("X-Amzn-Errortype"), ":")
	if id := resp.Header.Get("X-Amzn-Requestid"); id != "" {
		resp.Header.Set("Request-Id", id)
	}
	for name := range resp.Header {
		if strings.HasPrefix(name, "X-Amzn-") {
			delete(resp.Header, name)
		}
	}
	switch {
	case resp.StatusCode >= 400:
		o.ownError(resp, kind)
	case mediaType(resp) == eventStreamType:
		resp.Body, resp.ContentLength = newFrames(resp.Body, o.d), -1
		resp.Header.Set("Content-Type", "text/event-stream; charset=utf-8")
		resp.Header.Del("Content-Length")
	}
}
