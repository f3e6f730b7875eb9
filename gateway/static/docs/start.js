// In a file of its own: the page's policy runs no inline script.
SwaggerUIBundle({
  url: "/api/openapi.json",
  dom_id: "#swagger-ui",
  deepLinking: true,
  displayRequestDuration: true,
  docExpansion: "list",
  filter: true,
  persistAuthorization: false, // a token in the browser's storage outlives the visit
  tryItOutEnabled: true,
  validatorUrl: null, // nothing of ours goes to a validator elsewhere
});
