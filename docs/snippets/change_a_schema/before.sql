SET LOCAL lock_timeout = '2s';
CREATE INDEX ix_orders_day ON orders (day);
ALTER TABLE orders ALTER COLUMN note SET NOT NULL;
