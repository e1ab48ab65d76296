// SPDX-License-Identifier: Apache-2.0

package inference

import (
	"context"
	"errors"
	"net/http"
	"net/url"
	"strings"
)

// azure is Azure OpenAI, in two surfaces that the base URL chooses between:
//
//   - https://NAME.openai.azure.com or .../openai/v1: the v1 surface, which has the
//     dialect's own paths and the deployment's name as the model;
//   - https://NAME.openai.azure.com/openai: the former one, which has the deployment in
//     the path, a dated version in the query, and those operations only that belong to
//     a deployment.
//
// The credential is the resource's key. Entra ID tokens are not built. Sources: Azure
// OpenAI REST reference (data plane), openai-go v3.96 package azure.
var azure = platform{name: "azure", dialects: []string{"openai"}, address: addressAzure, authorize: authorizeAzure}

// azureVersion is the newest version of the former surface that is not a preview.
const azureVersion = "2024-10-21"

// azureDeployment are the operations that belong to a deployment.
var azureDeployment = map[string]bool{
	"/v1/chat/completions": true, "/v1/completions": true, "/v1/embeddings": true, "/v1/images/generations": true, "/v1/audio/speech": true,
}

func addressAzure(o *outbound) *refusal {
	base := strings.TrimRight(o.base.Path, "/")
	rest := strings.TrimPrefix(o.path, "/v1")
	switch {
	case strings.HasSuffix(base, "/openai/v1"):
		o.path = rest
	case base == "":
		o.path = "/openai/v1" + rest
	case strings.HasSuffix(base, "/openai"):
		if !azureDeployment[o.route.path] {
			ref := o.lacks("azure at this address")
			ref.remedy = "The operator can have the base URL end in /openai/v1, where Azure has every operation"
			return ref
		}
		o.path, o.query = "/deployments/"+escapeSegment(o.model)+rest, "api-version="+azureVersion
	default:
		return platformBase("azure", "https://NAME.openai.azure.com/openai/v1")
	}
	return nil
}

// platformBase is the refusal of a base URL in which a platform does not find what it
// needs.
func platformBase(platform, want string) *refusal {
	return &refusal{status: http.StatusServiceUnavailable, code: codeConfig, reason: "provider",
		message: "the base URL of the provider is not one of the platform " + platform,
		remedy:  "The operator should write it as " + want}
}

// escapeSegment escapes a name for one segment of a path, colons and slashes included:
// two readers must not find other segments in it.
func escapeSegment(s string) string {
	return strings.ReplaceAll(url.QueryEscape(s), "+", "%20")
}

var errBadKey = errors.New("its secret is not in a form that the platform has")

func authorizeAzure(_ context.Context, o *outbound, req *http.Request) ([]string, error) {
	if o.key == "" || !headerSafe(o.key) {
		return nil, errBadKey
	}
	req.Header.Set("Api-Key", o.key)
	return []string{o.key}, nil
}
