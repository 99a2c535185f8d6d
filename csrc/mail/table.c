/* mail/table.c - see table.h. */
#include "mail/table.h"

const struct stls_row *stls_table_find(const struct stls_table *table, unsigned state,
                                       unsigned class, const struct stls_dialogue *d) {
  size_t i;
  for (i = 0; i < table->row_count; i++) {
    const struct stls_row *row = &table->rows[i];
    if (row->state != state || !(row->classes & class)) continue;
    if (!row->guard || row->guard(d)) return row;
  }
  return NULL;
}

bool stls_table_decides(const struct stls_table *table, unsigned state) {
  size_t i;
  for (i = 0; i < table->row_count; i++) {
    if (table->rows[i].state == state) return table->rows[i].classes == STLS_ON_NOTHING;
  }
  return false;
}
