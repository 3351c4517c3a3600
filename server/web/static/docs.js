// validatorUrl null: the viewer would ask a public server for a badge, and tell it where this one is.
SwaggerUIBundle({
  url: "/openapi/openapi.json",
  dom_id: "#document",
  deepLinking: true,
  docExpansion: "list",
  defaultModelsExpandDepth: 0,
  validatorUrl: null,
});
